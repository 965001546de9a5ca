"""The house keeps its own rules: quick to enter, no room too large, files that say the same."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import jernih

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "jernih"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

LONGEST = 300
LONGER = {
    "assess/checks.py": "one short function a check, side by side in the table at its end",
    "assess/result.py": "the layout of assessment.json, every field with its meaning",
    "attack_files/run.py": "one job from reading to the recheck, with its resumption",
    "attacks/base.py": "the contract that every attack keeps, most of it documentation",
    "bulk/run.py": "the work on one archive, from reading to the table of what was written",
    "cli.py": "the options of all commands, with their help",
    "config.py": "all settings of a run in one model",
    "pipeline/model.py": "the stages from classifier to detector, each a few lines",
    "pipeline/semma.py": "the last stage, with what its report tells beside the figures",
}
"""Files that are longer, and why."""

HEAVY = ("torch", "torchvision", "timm", "lightning", "numpy", "pandas", "scipy", "matplotlib")
SOON = 0.3
"""Seconds."""


def test_no_file_is_long_without_a_reason() -> None:
    lines = {
        file.relative_to(SOURCE).as_posix(): len(file.read_text(encoding="utf-8").splitlines())
        for file in SOURCE.rglob("*.py")
    }
    long = {name for name, count in lines.items() if count > LONGEST}
    assert long - LONGER.keys() == set(), "split it, or give the reason here"
    assert LONGER.keys() - long == set(), "short enough by now: take it off the list"


def imported(code: str) -> tuple[set[str], float]:
    """What a fresh interpreter has imported after some code, and how long that took."""
    told = (
        f"import sys, time; began = time.perf_counter(); {code}; "
        "print(time.perf_counter() - began, *sys.modules)"
    )
    answer = subprocess.run(  # noqa: S603 - the command is this test's own
        [sys.executable, "-c", told], capture_output=True, text=True, check=True
    )
    took, *modules = answer.stdout.split()
    return set(modules), float(took)


@pytest.mark.parametrize(
    "code", ["import jernih", "import jernih.cli", "from jernih import InputError"]
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    modules, _ = imported(code)
    assert modules.isdisjoint(HEAVY)


def test_that_would_be_noticed() -> None:
    assert "torch" in imported("from jernih import FGSM")[0]


def test_importing_is_quick() -> None:
    # The quickest of some, since other programs may be at work.
    assert min(imported("import jernih")[1] for _ in range(5)) < SOON


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    versions = {jernih.__version__, PROJECT["project"]["version"], citation["version"]}
    assert len(versions) == 1
    assert citation["license"] == PROJECT["project"]["license"]


def test_every_room_has_its_place_among_the_layers() -> None:
    contract = next(c for c in PROJECT["tool"]["importlinter"]["contracts"] if c["id"] == "rooms")
    assert contract["exhaustive"]
    placed = {
        name.strip().strip("()")
        for layer in contract["layers"]
        for part in layer.split("|")
        for name in part.split(":")
    }
    rooms = {
        entry.stem
        for entry in SOURCE.iterdir()
        if (entry.suffix == ".py" or (entry / "__init__.py").is_file()) and entry.stem != "__init__"
    }
    assert rooms <= placed


def test_what_runs_before_a_commit_is_what_lint_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    commands = [hook["entry"] for repo in hooks for hook in repo["hooks"]]
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    for tool in ("ruff check", "ruff format --check", "mypy", "lint-imports"):
        assert f"$(BIN)/{tool}" in recipe
        assert any(tool.removesuffix(" --check") in command for command in commands)
