#!/usr/bin/env bash
# What the container installs, as a list of parts (SBOM, CycloneDX), and known weaknesses in it.
# Needs cyclonedx-py (cyclonedx-bom) and pip-audit, which asks PyPI; a package that it cannot ask about
# is a failure, not a pass.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build
cyclonedx-py requirements deploy/requirements.lock --output-reproducible --output-file build/sbom.cdx.json
pip-audit --strict --requirement deploy/requirements.lock --require-hashes --disable-pip --desc off
