from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from jernih.attack_files import AttackFolder, Row
from jernih.storage import read_json, sha256_file
from jernih.validate import InputError

SETTINGS = {"attack": "pgd", "options": {"steps": 5, "norms": (1, 2)}, "seed": 0}


def row(folder: Path, name: str) -> Row:
    """A row whose file is there."""
    (folder / name).write_text(name)
    words = {f.name: "a" for f in dataclasses.fields(Row)}
    numbers = {"distance": 0.1, "distance_written": 0.1, "linf_written": 0.1}
    known = {**words, **numbers, "success": True, "success_written": True}
    return Row(**{**known, "path": name, "sha256": sha256_file(folder / name)})  # type: ignore[arg-type]


def test_goes_on_with_the_same_settings_only(tmp_path: Path) -> None:
    with AttackFolder(tmp_path / "out").begun(SETTINGS):
        pass
    with AttackFolder(tmp_path / "out").begun(json.loads(json.dumps(SETTINGS))):
        pass
    other = {**SETTINGS, "options": {"steps": 6, "norms": [1, 2]}, "target": "b"}
    with (
        pytest.raises(InputError, match=r"options\.steps 5 \(now 6\), target None \(now b\)"),
        AttackFolder(tmp_path / "out").begun(other),
    ):
        pass


def test_other_things_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_text("mine")
    with pytest.raises(InputError, match="an empty folder"):
        AttackFolder(tmp_path)
    with pytest.raises(InputError, match="out: expected a folder"):
        AttackFolder(tmp_path / "photo.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden").touch()
    AttackFolder(tmp_path / "empty")
    AttackFolder(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        AttackFolder(tmp_path).begun(SETTINGS),
        pytest.raises(InputError, match="no other run"),
        AttackFolder(tmp_path).begun(SETTINGS),
    ):
        pass


def test_journal_bears_a_torn_line_and_absent_or_changed_files(tmp_path: Path) -> None:
    folder = AttackFolder(tmp_path)
    rows = [row(tmp_path, name) for name in ("one", "two", "three", "four")]
    with folder.begun(SETTINGS):
        folder.note(rows[:2], {"bad.png": "truncated"})
        with (tmp_path / ".finished.jsonl").open("a") as stream:
            stream.write('{"path": "thr')
        folder.note(rows[2:], {})
    assert folder.finished() == ({r.path: r for r in rows}, {"bad.png": "truncated"})
    (tmp_path / "one").unlink()
    (tmp_path / "two").write_text("changed")
    assert list(folder.finished()[0]) == ["three", "four"]


def test_manifest_and_record(tmp_path: Path) -> None:
    folder = AttackFolder(tmp_path)
    with folder.begun(SETTINGS):
        folder.complete([row(tmp_path, "one")], {"eps": 0.1}, {"counts": {"images": 1}})
    record = read_json(folder.record)
    assert record["settings"]["options"]["norms"] == [1, 2]
    assert record["counts"] == {"images": 1}
    assert record["manifest"]["sha256"] == sha256_file(folder.table)
    head, line = folder.table.read_text().splitlines()
    assert head.startswith("path,source,label,target,before,after,written,success,")
    assert head.endswith(",eps")
    assert line.startswith("one,a,a,")
