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

from jernih.bulk.archives import Entry, Writer, encoded, read_shard
from jernih.bulk.shards import Shard, check_apart, find_shards
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


def test_files_that_differ_by_their_ending_alone_keep_it(tmp_path: Path) -> None:
    """Else the second one's result would replace the first one's."""
    (tmp_path / "in").mkdir()
    for name in ("x.png", "x.jpg", "y.png"):
        (tmp_path / "in" / name).write_bytes(PNGS[0])
    assert [entry.name for entry in entries(tmp_path / "in")] == ["x.jpg", "x.png", "y"]
    (tmp_path / "in" / "x.jpg.png").write_bytes(PNGS[0])
    with pytest.raises(InputError, match="names of their own"):
        find_shards(str(tmp_path / "in"))


def test_two_images_of_one_name_in_a_tar_are_refused(tmp_path: Path) -> None:
    both = write_tar(tmp_path / "both.tar", {"a.png": PNGS[0], "a.jpg": PNGS[1]})
    with pytest.raises(InputError, match=r"one image of a name; got a\.png, a\.jpg"):
        entries(both)
    twice = tmp_path / "twice.tar"
    with tarfile.open(twice, "w") as archive:
        for content in PNGS[:2]:
            member = tarfile.TarInfo("a.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(InputError, match=r"each name once; got a\.png again"):
        entries(twice)


def test_a_shard_that_has_changed_is_another(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"a.png": PNGS[0]})
    (before,) = find_shards(str(path))
    assert find_shards(str(path)) == [before]
    write_tar(path, {"a.png": PNGS[0], "b.png": PNGS[1]})
    (after,) = find_shards(str(path))
    assert (after.name, after.version != before.version) == (before.name, True)


def test_results_lie_apart_from_the_source(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "s.tar", {"a.png": PNGS[0]})
    source = str(tmp_path / "in")
    for out in (source, f"{source}/", f"{source}/out", f"file://{source}"):
        with pytest.raises(InputError, match="apart from the source"):
            check_apart(source, out)
    with pytest.raises(InputError, match="apart from the source"):
        check_apart(f"{source}/*.tar", source)
    for out in (f"{source}-restored", str(tmp_path), "memory://in"):
        check_apart(source, out)


def test_columns_that_begin_without_values_keep_their_type(tmp_path: Path) -> None:
    """More rows than are written at once, and the first of them tell no type."""
    count = 70
    table = pa.table(
        {"image": [PNGS[0]] * count, "note": pa.array([None] * (count - 1) + ["x"], pa.string())}
    )
    (tmp_path / "in").mkdir()
    parquet.write_table(table, tmp_path / "in" / "part.parquet")
    (shard,) = find_shards(str(tmp_path / "in"))
    writer = Writer(shard, str(tmp_path / "out"))
    for entry in read_shard(shard):
        writer.add(entry, PNGS[1])
    writer.close()
    again = parquet.read_table(tmp_path / "out" / "part.parquet")
    assert again["note"].to_pylist() == [None] * (count - 1) + ["x"]
    assert again["image"].to_pylist() == [PNGS[1]] * count


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
