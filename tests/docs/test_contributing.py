"""The change that CONTRIBUTING.md shows still fits, and does what it says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks


def shown() -> str:
    """The change."""
    (diff,) = [b.text for b in blocks(ROOT / "CONTRIBUTING.md") if b.language == "diff"]
    return diff


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the change touches and what its tests need, with the change."""
    for part in ("src", "tests", "docs"):
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(ROOT / part, tmp_path / part, ignore=ignored)
    for part in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / part, tmp_path / part)
    # Away from any repository that the temporary folder may lie in.
    command = ["git", "apply", "--verbose", "-"]
    subprocess.run(  # noqa: S603 - the command is this test's own
        command, input=shown(), text=True, check=True, cwd=tmp_path,
        env={"GIT_CEILING_DIRECTORIES": str(tmp_path.parent), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    return tmp_path


def test_the_change_applies(copy: Path) -> None:
    assert (copy / "src/jernih/attacks/ni_fgsm.py").is_file()
    assert "ni-fgsm" in (copy / "docs/attacks.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_its_tests_pass(copy: Path) -> None:
    chosen = "ni_fgsm or ni-fgsm"
    done = subprocess.run(  # noqa: S603 - the command is this test's own
        [sys.executable, "-m", "pytest", "tests/attacks", "-q", "-k", chosen], cwd=copy,
        env={"PYTHONPATH": str(copy / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert int(done.stdout.rpartition(" passed")[0].split()[-1]) > 20
