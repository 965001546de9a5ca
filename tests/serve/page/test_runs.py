"""Finished runs found, summed up and compared."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from jernih.assess.words import format_rate
from jernih.serve.page.downloads import new_folder
from jernih.serve.page.runs import COLUMNS, compare_runs, find_run, list_runs, remarks, summary
from jernih.validate import InputError
from tests.assess.examples import run


def test_runs_are_those_assessed(tmp_path: Path) -> None:
    assessment = run()
    assessment.save(tmp_path / "b" / "assess" / "assessment.json")
    assessment.save(tmp_path / "a" / "assess" / "assessment.json")
    (tmp_path / "begun").mkdir()
    assert list_runs(tmp_path) == ["a", "b"]
    assert list_runs(tmp_path / "nowhere") == []
    assert find_run(tmp_path, "a") == tmp_path / "a"
    for name in ("begun", "../a", "a/../b", "", "."):
        with pytest.raises(InputError, match="one of 'a', 'b'"):
            find_run(tmp_path, name)


def test_two_runs_beside_each_other() -> None:
    first = run()
    table = compare_runs(first, first)
    assert len(table) == len(first.conditions)
    assert all(len(row) == len(COLUMNS) for row in table)
    assert {row[-1] for row in table} == {"+0.0"}
    assert table[0][3] == table[0][4] == format_rate(first.condition("clean").accuracy)
    assert remarks(first, first) == []
    fewer = dataclasses.replace(first, conditions=first.conditions[:2], n=first.n - 1)
    shorter = compare_runs(first, fewer)
    assert [row[4] for row in shorter[2:]] == ["–"] * (len(first.conditions) - 2)
    assert "images" in remarks(first, fewer)[0]
    other = dataclasses.replace(first, classes=("x", *first.classes[1:]))
    assert remarks(first, other) == ["Their classes are not the same."]
    assert f"{first.n} images" in summary(first)


def test_downloads_go_after_a_while() -> None:
    first = new_folder()
    second = new_folder()
    assert first.is_dir()
    time.sleep(0.01)
    third = new_folder(kept=0.0)
    assert third.is_dir()
    assert not first.exists()
    assert not second.exists()
