"""Shards read and written again."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from jernih.bulk.archives import Entry, Shard, Writer, encoded, find_shards, read_shard
from jernih.data.images import UnreadableImage
from jernih.randomness import generator
from jernih.validate import InputError

PICTURES = [torch.rand(3, 8 + k, 9, generator=generator("bulk", k)) for k in range(5)]
PNGS = [encoded(picture) for picture in PICTURES]


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def entries(path: Path) -> list[Entry]:
    return [entry for shard in find_shards(str(path)) for entry in read_shard(shard)]


def test_tar_shards_as_webdataset_has_them(tmp_path: Path) -> None:
    members = {"a/0.png": PNGS[0], "a/0.cls": b"1", "a/0.txt": b"kept", "b.JPG": b"x"}
    members |= {"c.png": PNGS[2], "c.json": json.dumps({"label": "dog"}).encode(), "d.txt": b"-"}
    write_tar(tmp_path / "in" / "shard-1.tar", members)
    write_tar(tmp_path / "in" / "shard-0.tar", {"z.png": PNGS[1]})
    shards = find_shards(str(tmp_path / "in"))
    assert [shard.name for shard in shards] == ["shard-0.tar", "shard-1.tar"]
    found = list(read_shard(shards[1]))
    assert [(entry.name, entry.ending, entry.label) for entry in found] == [
        ("a/0", ".png", 1), ("b", ".jpg", None), ("c", ".png", "dog"),
    ]  # fmt: skip
    torch.testing.assert_close(found[0].image(), PICTURES[0], atol=1 / 255, rtol=0)
    with pytest.raises(UnreadableImage):
        found[1].image()
    writer = Writer(shards[1], str(tmp_path / "out"))
    writer.add(found[0], PNGS[3])
    writer.close()
    (again,) = entries(tmp_path / "out")
    assert (again.name, again.label, again.content) == ("a/0", 1, PNGS[3])
    assert again.rest[".txt"] == b"kept"
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["shard-1.tar"]


@pytest.mark.parametrize("wrapped", [True, False])
def test_parquet(wrapped: bool, tmp_path: Path) -> None:
    images = [{"bytes": png, "path": None} for png in PNGS] if wrapped else PNGS
    table = pa.table({"image": images, "label": [0, 1, 0, 1, 0], "patient": list("abcde")})
    (tmp_path / "in").mkdir()
    parquet.write_table(table, tmp_path / "in" / "part.parquet")
    found = entries(tmp_path / "in" / "part.parquet")
    assert [entry.label for entry in found] == [0, 1, 0, 1, 0]
    torch.testing.assert_close(found[3].image(), PICTURES[3], atol=1 / 255, rtol=0)
    (shard,) = find_shards(str(tmp_path / "in"))
    writer = Writer(shard, str(tmp_path / "out"))
    for entry in found:
        writer.add(entry, PNGS[0])
    writer.close()
    again = parquet.read_table(tmp_path / "out" / "part.parquet")
    assert again["patient"].to_pylist() == list("abcde")
    assert again["image"].to_pylist() == [PNGS[0]] * 5


def test_a_folder_of_images(tmp_path: Path) -> None:
    for number, png in enumerate(PNGS):
        path = tmp_path / "in" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
    found = entries(tmp_path / "in")
    assert [(entry.name, entry.label) for entry in found] == [
        ("a/0", "a"), ("a/2", "a"), ("a/4", "a"), ("b/1", "b"), ("b/3", "b"),
    ]  # fmt: skip
    assert [e.name for e in entries(tmp_path / "in" / "a" / "*.png")] == ["0", "2", "4"]
    by_address = find_shards(f"file://{tmp_path / 'in'}")
    assert [entry.name for entry in read_shard(by_address[0])] == [entry.name for entry in found]


def test_names_lead_nowhere_else(tmp_path: Path) -> None:
    """A tar's names are kept within it, and never become paths."""
    write_tar(tmp_path / "in" / "s.tar", {"../../evil.png": PNGS[0]})
    (shard,) = find_shards(str(tmp_path / "in"))
    writer = Writer(shard, str(tmp_path / "out"))
    for entry in read_shard(shard):
        writer.add(entry, PNGS[1])
    writer.close()
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["s.tar", "s.tar"]


def test_what_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="existing archive"):
        find_shards(str(tmp_path / "none"))
    with pytest.raises(InputError, match="tar shards, Parquet files or images"):
        find_shards(str(tmp_path))
    bad = tmp_path / "bad.tar"
    bad.write_bytes(b"no tar at all" * 100)
    with pytest.raises(InputError, match="whole tar file"):
        entries(bad)
    whole = write_tar(tmp_path / "cut" / "cut.tar", {f"{k}.png": PNGS[k] for k in range(5)})
    whole.write_bytes(whole.read_bytes()[:-11_000])
    with pytest.raises(InputError, match="whole tar file"):
        entries(whole)
    parquet.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="column 'image'"):
        entries(tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="whole Parquet"):
        entries(tmp_path / "y.parquet")
    assert Shard("a", "tar", ()).root == ""
