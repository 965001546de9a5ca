"""The examples run, in their quick form, and stay notebooks that can be read."""

from __future__ import annotations

import re
import runpy
import tempfile
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
CELL = re.compile(r"^# %%(.*)\n", re.MULTILINE)


def cells(example: Path) -> list[tuple[bool, str]]:
    """Whether each cell is prose, and its text."""
    parts = CELL.split(example.read_text(encoding="utf-8"))
    assert parts[0] == ""
    return [
        ("[markdown]" in kind, text.strip("\n"))
        for kind, text in zip(parts[1::2], parts[2::2], strict=True)
    ]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("own_units")
def test_it_runs(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("JERNIH_QUICK", "1")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    runpy.run_path(str(example), run_name="__main__")
    shown = capsys.readouterr().out
    if example.stem == "own_model":
        assert "adaptive pgd" in shown
        assert int(re.findall(r"^(\d+) patients", shown, re.MULTILINE)[0]) > 40
        assert next(tmp_path.rglob("assessment.json")).is_file()
    elif example.stem == "new_attack":
        assert float(re.findall(r"at most (\S+)", shown)[0]) < 1e-6
        assert re.search(r"^ni-fgsm  fools +[1-9]", shown, re.MULTILINE)
    else:
        assert shown.count("adaptive pgd") == 3
        assert "little-residual: The gradient tells what the loss does" in shown


def test_there_are_three() -> None:
    assert [path.stem for path in EXAMPLES] == ["new_attack", "new_purifier", "own_model"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_cells_are_short(example: Path) -> None:
    for prose, text in cells(example):
        lines = text.splitlines()
        if prose:
            assert all(line.startswith("#") for line in lines), text
            assert len(lines) <= 8, text
        else:
            assert len(lines) <= 45, text
