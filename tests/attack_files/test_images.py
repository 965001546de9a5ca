from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from jernih.attack_files import find_images, find_source
from jernih.validate import InputError
from tests.helpers import striped_folder


def flat(folder: Path, root: Path) -> Path:
    """The images in one folder, and a table of labels elsewhere."""
    place = root / "flat"
    place.mkdir()
    lines = ["path,label"]
    for file in sorted(folder.rglob("*.png")):
        file.rename(place / file.name)
        lines.append(f"{file.name},{file.parent.name}")
    (root / "labels.csv").write_text("\n".join(lines))
    return place


def test_class_folders(folder: Path, tmp_path: Path) -> None:
    images = find_images(find_source(str(folder)), tmp_path)
    assert images.classes == ("a", "b")
    assert [item.label for item in images.items] == ["a"] * 4 + ["b"] * 4
    assert images.source["source"]["name"] == "folder"


def test_flat_folder_with_a_table(folder: Path, tmp_path: Path) -> None:
    place = flat(folder, tmp_path)
    with pytest.raises(InputError, match="class folders, or one table of labels"):
        find_source(str(place))
    apart = find_images(find_source(str(place), str(tmp_path / "labels.csv")), tmp_path)
    (tmp_path / "labels.csv").rename(place / "labels.csv")
    for data in (place, place / "labels.csv"):
        images = find_images(find_source(str(data)), tmp_path)
        assert images.items == apart.items
        assert Counter(item.label for item in images.items) == {"a": 4, "b": 4}


def test_registered_sources_by_name(tmp_path: Path) -> None:
    source = find_source("phantom", options={"images": 4, "size": 32, "defects": False})
    assert len(find_images(source, tmp_path).items) == 4


def test_split_and_limit(tmp_path: Path) -> None:
    for split in ("train", "test"):
        striped_folder(tmp_path / "data" / split, each=6)
    source = find_source(str(tmp_path / "data"))
    images = find_images(source, tmp_path, split="test", limit=6, seed=1)
    assert {item.split for item in images.items} == {"test"}
    assert Counter(item.label for item in images.items) == {"a": 3, "b": 3}
    assert images.source["split"] == "test"
    assert images == find_images(source, tmp_path, split="test", limit=6, seed=1)
    assert images.items != find_images(source, tmp_path, split="test", limit=6, seed=2).items
    assert len(find_images(source, tmp_path, limit=100).items) == 24
    with pytest.raises(InputError, match=r"one that the data has \(test, train\)"):
        find_images(source, tmp_path, split="val")
    with pytest.raises(InputError, match="nearest: 'test'"):
        find_images(source, tmp_path, split="tests")
    with pytest.raises(InputError, match="limit"):
        find_images(source, tmp_path, limit=0)


@pytest.mark.parametrize(
    ("data", "labels", "options", "message"),
    [
        ("/no/such/folder", None, {}, "no such folder or file"),
        ("phantoms", None, {}, "nearest: 'phantom'"),
        ("phantom", None, {"imagess": 3}, "nearest: 'images'"),
        ("/no/such.csv", None, {}, "an existing file"),
        ("phantom", "labels.csv", {}, "a folder, since labels"),
    ],
)
def test_wrong_data(
    data: str, labels: str | None, options: dict[str, int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        find_images(find_source(data, labels, options), tmp_path)
