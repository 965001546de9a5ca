"""The lock names what the project needs, in versions that it takes, each with a hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
APART = ("torch", "torchvision")
"""What the Dockerfile takes from torch's own index."""


def wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return [
        Requirement(line) for line in (*project["dependencies"], *extras["dicom"], *extras["serve"])
    ]


def locked() -> dict[str, tuple[Version, int]]:
    """Version and number of hashes by name."""
    text = (ROOT / "deploy" / "requirements.lock").read_text(encoding="utf-8")
    entries = re.split(r"^(?=[a-z0-9])", text.replace("\\\n", " "), flags=re.MULTILINE)
    found: dict[str, tuple[Version, int]] = {}
    for entry in entries[1:]:
        name, version = re.match(r"([\w.-]+)==(\S+)", entry).groups()  # type: ignore[union-attr]
        found[canonicalize_name(name)] = (Version(version), entry.count("--hash=sha256:"))
    return found


def test_everything_needed_is_there_in_a_version_that_is_taken() -> None:
    there = locked()
    for requirement in wanted():
        name = canonicalize_name(requirement.name)
        if name in APART:
            continue
        assert name in there, f"{name}: run deploy/lock.sh"
        version = there[name][0]
        assert requirement.specifier.contains(version), f"{requirement}: {version} is locked"


def test_each_has_hashes_and_torch_comes_from_elsewhere() -> None:
    there = locked()
    assert len(there) > 50
    assert all(hashes > 0 for _, hashes in there.values())
    assert not [name for name in there if name in APART or name.startswith("nvidia-")]


def test_the_container_installs_nothing_else() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    commands = re.findall(r"pip install (.+)", lines)
    assert len(commands) == 3
    torch, lock, own = commands
    pins = dict(re.findall(r"^ARG (TORCH(?:VISION)?)=(\S+)$", lines, re.MULTILINE))
    for requirement in wanted():
        if requirement.name in APART:
            assert requirement.specifier.contains(pins[requirement.name.upper()])
            assert f"{requirement.name}==${{{requirement.name.upper()}}}" in torch
    assert "--require-hashes" in lock
    assert "--no-deps" in lock
    assert "--no-deps --no-build-isolation ." in own
    assert "pip check" in own
