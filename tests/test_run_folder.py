"""Stages that are complete, and those that are not."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from jernih.run_folder import RunFolder
from jernih.validate import InputError


def done(run: RunFolder, key: str = "k") -> Path:
    folder = run.begin("a/b", key)
    (folder / "figures").mkdir(exist_ok=True)
    (folder / "figures" / "x.png").write_bytes(b"x")
    (folder / "out.json").write_text("{}")
    run.complete("a/b", key)
    return folder


def test_complete_until_an_input_or_a_file_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder(tmp_path / "run")
    assert not run.is_complete("a/b", "k")
    folder = done(run)
    assert run.is_complete("a/b", "k")
    assert not run.is_complete("a/b", "other")
    (folder / "out.json").write_text("{ }")
    with caplog.at_level(logging.WARNING):
        assert not run.is_complete("a/b", "k")
    assert "was changed" in caplog.text
    done(run)
    (folder / "figures" / "x.png").unlink()
    assert not run.is_complete("a/b", "k")


def test_a_damaged_record_means_not_complete(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    record = done(run) / "stage.json"
    for text in ("", "[]", '{"key": "k"}'):
        record.write_text(text)
        assert not run.is_complete("a/b", "k")


def test_what_an_interrupted_stage_left_is_kept_for_the_same_inputs_only(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    folder = run.begin("a", "k")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"x")
    run.begin("a", "k")
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    run.begin("a", "other")
    assert not (folder / "checkpoints").exists()


def test_outputs_tell_other_files_apart(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    folder = done(run)
    before = run.outputs("a/b")
    (folder / "out.json").write_text("[]")
    run.complete("a/b", "k")
    assert run.outputs("a/b") != before
    assert run.key({"x": 1}) != run.key({"x": 2})


def test_one_process_at_a_time(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    with first.locked(), pytest.raises(InputError, match="no other run is using"), second.locked():
        pass
    with second.locked():
        pass


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="out: expected a folder that can be written"):
        RunFolder(tmp_path / "file")
    with pytest.raises(InputError, match="out: expected a folder that can be written"):
        RunFolder(tmp_path / "file" / "below")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(InputError, match="not writable"):
        RunFolder(tmp_path / "locked")
