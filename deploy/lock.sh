#!/usr/bin/env bash
# Makes deploy/requirements.lock again: what the container installs, each with its hashes. torch and
# torchvision come from their own index (for CPUs or CUDA), by version: see the Dockerfile.
# Needs uv (https://docs.astral.sh/uv/). Then look for known weaknesses: deploy/audit.sh
set -euo pipefail
cd "$(dirname "$0")/.."
left_out=()
for name in torch torchvision triton cuda-bindings cuda-pathfinder cuda-toolkit \
  nvidia-{cublas,cuda-cccl,cuda-cupti,cuda-nvrtc,cuda-runtime,cudnn-cu13,cufft,cufile,cusolver,cusparse} \
  nvidia-{cusparselt-cu13,nccl-cu13,nvjitlink,nvshmem-cu13,nvtx}; do
  left_out+=(--no-emit-package "$name")
done
uv pip compile pyproject.toml --extra dicom --extra serve --quiet \
  --python-version 3.12 --python-platform x86_64-unknown-linux-gnu \
  --generate-hashes --no-annotate --custom-compile-command deploy/lock.sh \
  "${left_out[@]}" --output-file deploy/requirements.lock
grep -c "==" deploy/requirements.lock
