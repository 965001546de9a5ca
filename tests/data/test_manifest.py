from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from jernih.data.manifest import Manifest, Record
from jernih.validate import InputError

RECORDS = (
    Record(Path("/data/a 1.png"), "cat", "train", "p1", "00"),
    Record(Path("/data/b,2.png"), "dog", "train", "", "11"),
    Record(Path('/data/"c"\n3.png'), "cat", "val", "p2", "22"),
    Record(Path("/data/ü.png"), "dog", "test", "p3", "33"),
    Record(Path("/data/e.png"), "dog", "train", "p4", "44"),
)


@pytest.fixture
def manifest() -> Manifest:
    source = {"name": "folder", "path": "/data", "pattern": None, "suffixes": [".png"]}
    return Manifest(source, ("dog", "bird", "cat"), RECORDS, 7)


def test_round_trip(manifest: Manifest, tmp_path: Path) -> None:
    manifest.save(tmp_path / "run")
    assert Manifest.load(tmp_path / "run") == manifest
    head = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert head["counts"] == {"train": 3, "val": 1, "test": 1}


def test_saving_again_gives_the_same_bytes(manifest: Manifest, tmp_path: Path) -> None:
    manifest.save(tmp_path / "a")
    Manifest.load(tmp_path / "a").save(tmp_path / "b")
    for name in ("manifest.csv", "manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("old", "new"), [("cat", "dog"), ("train", "test"), ("p1", "p9"), ("", "\n")]
)
def test_an_edited_table_is_noticed(manifest: Manifest, tmp_path: Path, old: str, new: str) -> None:
    manifest.save(tmp_path)
    table = tmp_path / "manifest.csv"
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace(old, new, 1) if old else text + new, encoding="utf-8")
    with pytest.raises(InputError, match="changed"):
        Manifest.load(tmp_path)


def test_a_truncated_table_is_noticed(manifest: Manifest, tmp_path: Path) -> None:
    manifest.save(tmp_path)
    table = tmp_path / "manifest.csv"
    table.write_text("".join(table.read_text(encoding="utf-8").splitlines(True)[:-1]), "utf-8")
    with pytest.raises(InputError, match="changed"):
        Manifest.load(tmp_path)


def test_absent_or_damaged_files_are_said(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="existing"):
        Manifest.load(tmp_path)
    manifest.save(tmp_path)
    head = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    (tmp_path / "manifest.json").write_text(json.dumps({"sha256": head["sha256"]}))
    with pytest.raises(InputError, match="source"):
        Manifest.load(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(head | {"classes": ["dog", "bird"]}))
    with pytest.raises(InputError, match="cat"):
        Manifest.load(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        Manifest.load(tmp_path)
    (tmp_path / "manifest.csv").unlink()
    (tmp_path / "manifest.json").write_text(json.dumps(head))
    with pytest.raises(InputError, match=r"manifest\.csv"):
        Manifest.load(tmp_path)


def test_splits_keep_order_and_all_else(manifest: Manifest) -> None:
    train = manifest.split("train")
    assert train.records == (RECORDS[0], RECORDS[1], RECORDS[4])
    assert (train.source, train.classes, train.seed) == (manifest.source, manifest.classes, 7)
    assert len(train) == 3
    assert sum(len(manifest.split(name)) for name in ("train", "val", "test")) == len(manifest)


def test_keep_takes_what_the_predicate_holds_for(manifest: Manifest) -> None:
    kept = manifest.keep(lambda record: record.label == "cat")
    assert kept.records == (RECORDS[0], RECORDS[2])
    assert len(manifest) == 5


def test_counts_by_split_and_label(manifest: Manifest) -> None:
    assert manifest.counts() == {
        "train": {"cat": 1, "dog": 2}, "val": {"cat": 1}, "test": {"dog": 1},
    }  # fmt: skip


def test_labels_follow_the_order_of_the_classes(manifest: Manifest) -> None:
    assert manifest.labels().dtype is torch.int64
    assert manifest.labels().tolist() == [2, 0, 2, 0, 0]
    assert manifest.keep(lambda record: False).labels().shape == (0,)
