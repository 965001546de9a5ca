"""What holds for every data source, and then what is special to each."""

from __future__ import annotations

import csv
import importlib.util
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from jernih.data.images import UnreadableImage, read_image
from jernih.data.manifest import SPLITS
from jernih.data.sources import SOURCES, DataSource
from jernih.validate import InputError
from tests.data.test_dicom import write as write_dicom


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def folder(root: Path) -> DataSource:
    for number, name in enumerate(["train/cat/p1_a.png", "train/dog/p2_b.jpg", "test/cat/c.png"]):
        picture(root / name, number)
    return SOURCES.create("folder", path=str(root), patient_pattern=r"(p\d+)_")


def imagenet(root: Path) -> DataSource:
    for number, name in enumerate(["n01440764_tench.JPEG", "n01443537_goldfish.JPEG"]):
        picture(root / "images" / name, number)
    rows = [(1, "n01443537"), (0, "n01440764"), (2, "n01484850")]
    file = write_rows(root / "classes.csv", ["index", "wnid"], rows)
    return SOURCES.create("imagenet", path=str(root / "images"), classes_file=str(file))


def table(root: Path, **options: Any) -> DataSource:
    rows = [("a/1.png", "01", "train", "x"), ("a/2.png", "NA", "validation", ""),
            (str(root / "3.png"), "01", "test", "y")]  # fmt: skip
    for number, row in enumerate(rows):
        picture(root / row[0], number)
    path = write_rows(root / "images.csv", ["path", "label", "split", "patient"], rows)
    return SOURCES.create("table", path=str(path), **options)


def dicom(root: Path, findings: Sequence[tuple[str, object]] = ()) -> DataSource:
    (root / "files" / "deep").mkdir(parents=True)
    for number, name in enumerate(["ill.dcm", "deep/well.DICOM"]):
        pixels = np.random.default_rng(number).integers(0, 4096, (8, 8)).astype(np.uint16)
        write_dicom(root / "files" / name, pixels, BitsStored=12)
    found = findings or [("ill", 0), ("ill", 1), ("ill", 0), ("well", 0)]
    labels = write_rows(root / "labels.csv", ["patientId", "x", "Target"],
                        [(patient, "", target) for patient, target in found])  # fmt: skip
    return SOURCES.create("dicom", path=str(root / "files"), labels=str(labels))


def hub_data(
    images: Sequence[Image.Image], labels: Sequence[Any], names: Sequence[str] = ()
) -> Any:
    datasets = pytest.importorskip("datasets", reason="the extra [hub] is not installed")
    kind = datasets.ClassLabel(names=list(names)) if names else datasets.Value("string")
    features = datasets.Features({"image": datasets.Image(), "label": kind})
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


def noise(seed: int) -> Image.Image:
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(0, 256, (16, 20, 3), dtype=np.uint8))


def huggingface(root: Path) -> DataSource:
    datasets = pytest.importorskip("datasets", reason="the extra [hub] is not installed")
    parts = {
        name: hub_data([noise(i) for i in range(2)], [1, 0], ["dog", "cat", "bird"])
        for name in ("train", "validation", "test")
    }
    datasets.DatasetDict(parts).save_to_disk(root / "saved")
    return SOURCES.create("huggingface", id=str(root / "saved"))


def phantom(root: Path) -> DataSource:
    return SOURCES.create("phantom", images=12, size=64, defects=False)


BUILDERS: dict[str, Callable[[Path], DataSource]] = {
    "dicom": dicom,
    "folder": folder,
    "huggingface": huggingface,
    "imagenet": imagenet,
    "phantom": phantom,
    "table": table,
}


@pytest.fixture(autouse=True)
def quiet_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep ``datasets`` from the network, the home folder and the terminal."""
    if importlib.util.find_spec("datasets") is None:
        return
    datasets = importlib.import_module("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.mark.parametrize("name", SOURCES.names())
def test_contract(name: str, tmp_path: Path) -> None:
    source = BUILDERS[name](tmp_path / "data")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    items = source(tmp_path / "work")
    assert items
    assert [item.path for item in items] == sorted({item.path for item in items}, key=str)
    classes = source.classes([item.label for item in items])
    assert len(set(classes)) == len(classes) >= 2
    for item in items:
        assert item.path.is_absolute()
        assert item.label in classes
        assert item.split in (None, *SPLITS)
        image = read_image(item.path)
        assert image.dtype is torch.float32
        assert image.shape[0] == 3
        assert 0 <= float(image.min()) < float(image.max()) <= 1
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*")}
    assert source(tmp_path / "work") == items
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*")} == made
    assert all(path.read_bytes() == content for path, content in before.items())
    description = json.loads(json.dumps(source.describe()))
    options = {key: value for key, value in description.items() if key != "name"}
    assert description["name"] == name
    assert SOURCES.create(name, **options)(tmp_path / "work") == items


@pytest.mark.parametrize("name", sorted(set(SOURCES.names()) - {"phantom"}))
def test_a_place_that_is_not_there(name: str, tmp_path: Path) -> None:
    source = BUILDERS[name](tmp_path / "data")
    where = "id" if name == "huggingface" else "path"
    absent = source.describe() | {where: str(tmp_path / "no" / "such")}
    del absent["name"]
    with pytest.raises(InputError, match="such") as caught:
        SOURCES.create(name, **absent)(tmp_path / "work")
    assert "\n" not in str(caught.value)


# Folder


def test_folder_tells_split_label_and_patient(tmp_path: Path) -> None:
    items = folder(tmp_path)(tmp_path)
    told = [(item.path.name, item.label, item.split, item.patient) for item in items]
    assert told == [
        ("c.png", "cat", "test", ""),
        ("p1_a.png", "cat", "train", "p1"),
        ("p2_b.jpg", "dog", "train", "p2"),
    ]


def test_folder_without_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("cat/deep/1.png", "dog/2.PNG", "dog/.hidden.png", ".git/3.png", "loose.png"):
        picture(tmp_path / name)
    (tmp_path / "dog" / "notes.txt").touch()
    with caplog.at_level(logging.WARNING):
        items = SOURCES.create("folder", path=tmp_path)(tmp_path)
    told = [(item.path.name, item.label, item.split) for item in items]
    assert told == [("1.png", "cat", None), ("2.PNG", "dog", None)]
    assert "1 images" in caplog.text


def test_folder_refuses_what_it_cannot_place(tmp_path: Path) -> None:
    def find(**options: Any) -> None:
        SOURCES.create("folder", path=tmp_path, **options)(tmp_path)

    with pytest.raises(InputError, match="folder for each class"):
        find()
    (tmp_path / "cat").mkdir()
    with pytest.raises(InputError, match="at least one image"):
        find()
    picture(tmp_path / "cat" / "1.png")
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="train, val and test only; got cat"):
        find()
    with pytest.raises(InputError, match="one group"):
        find(patient_pattern="p.")
    with pytest.raises(InputError, match="regular expression"):
        find(patient_pattern="(")


# ImageNet


def test_imagenet_keeps_the_whole_label_space(tmp_path: Path) -> None:
    source = imagenet(tmp_path)
    items = source(tmp_path)
    assert [item.label for item in items] == ["n01440764", "n01443537"]
    assert source.classes([]) == ("n01440764", "n01443537", "n01484850")


def test_imagenet_errors(tmp_path: Path) -> None:
    source = imagenet(tmp_path)
    picture(tmp_path / "images" / "n99999999_thing.JPEG")
    with pytest.raises(InputError, match="n99999999"):
        source(tmp_path)
    picture(tmp_path / "images" / "tench.JPEG")
    (tmp_path / "images" / "n99999999_thing.JPEG").unlink()
    with pytest.raises(InputError, match=r"such as n01440764_tench\.JPEG"):
        source(tmp_path)
    write_rows(tmp_path / "classes.csv", ["index", "wnid"], [(0, "n01440764"), (2, "n01443537")])
    with pytest.raises(InputError, match="without gaps"):
        source(tmp_path)


# Table


def test_table_takes_every_value_as_text(tmp_path: Path) -> None:
    items = table(tmp_path)(tmp_path)
    told = {(item.path.name, item.label, item.split, item.patient) for item in items}
    assert told == {
        ("1.png", "01", "train", "x"), ("2.png", "NA", "val", ""), ("3.png", "01", "test", "y"),
    }  # fmt: skip


def test_table_from_parquet(tmp_path: Path) -> None:
    expected = table(tmp_path)(tmp_path)
    frame = pd.read_csv(tmp_path / "images.csv", dtype=str, keep_default_na=False)
    frame["patient"] = [None if patient == "" else patient for patient in frame["patient"]]
    frame.to_parquet(tmp_path / "images.parquet")
    assert SOURCES.create("table", path=tmp_path / "images.parquet")(tmp_path) == expected
    frame["label"] = [3, 10, 3]
    frame.to_parquet(tmp_path / "images.parquet")
    source = SOURCES.create("table", path=tmp_path / "images.parquet", classes=["3", "10"])
    assert {item.label for item in source(tmp_path)} == {"3", "10"}
    assert source.classes(["10"]) == ("3", "10")


def test_table_with_other_columns_and_root(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "1.png")
    path = write_rows(tmp_path / "t.csv", ["file", "finding", "who"], [("1.png", "ill", "p")])
    options = {"path_column": "file", "label_column": "finding", "patient_column": "who"}
    source = SOURCES.create("table", path=path, root=tmp_path / "images", **options)
    (item,) = source(tmp_path)
    assert (item.label, item.split, item.patient) == ("ill", None, "p")


def rows_refused(place: Path, header: str, *rows: str, **options: Any) -> str:
    for name in ("1.png", "2.png", "in/3.png"):
        picture(place / name)
    (place / "in" / "t.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        SOURCES.create("table", path=place / "in" / "t.csv", **options)(place)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_table_errors_name_row_and_value(tmp_path: Path) -> None:
    def refused(header: str, *rows: str, **options: Any) -> str:
        return rows_refused(tmp_path, header, *rows, root=tmp_path, **options)

    assert "nearest: 'lable'" in refused("path,lable", "1.png,a")
    assert "splt" in refused("path,label,split", "1.png,a,train", split_column="splt")
    empty = refused("path,label", "1.png,a", "2.png,", "in/3.png,")
    assert "row 2" in empty
    assert "row 3" in empty
    many = refused("path,label", *["1.png,"] * 5)
    assert "row 1" in many
    assert "5 in all" in many
    assert "row 2" in refused("path,label", "1.png,a", ",b")
    outside = refused("path,label", "1.png,a", "2.png,b", classes=["a", "c"])
    assert "row 2: 'b'" in outside
    absent = refused("path,label", "1.png,a", "in/9.png,b")
    assert "row 2" in absent
    assert str(tmp_path / "in" / "9.png") in absent
    assert "row 1: 'fold1'" in refused("path,label,split", "1.png,a,fold1")
    assert "row 2" in refused("path,label", "1.png,a", "./1.png,b")
    assert "row 1" in refused("path,label", "1.png,a,more")


def test_table_paths_stay_within_the_root(tmp_path: Path) -> None:
    message = rows_refused(tmp_path, "path,label", "3.png,a", "../1.png,b")
    assert "row 2" in message
    assert "'../1.png'" in message
    assert "row 1" in rows_refused(tmp_path, "path,label", "x/../../2.png,a")


def test_table_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "bytes.csv").write_bytes(b"path,label\n\xff\xfe\x00,a\n")
    (tmp_path / "text.parquet").write_text("path,label")
    (tmp_path / "header.csv").write_text("path,label\n")
    for name in ("empty.csv", "bytes.csv", "text.parquet", "header.csv"):
        with pytest.raises(InputError) as caught:
            SOURCES.create("table", path=tmp_path / name)(tmp_path)
        assert "\n" not in str(caught.value)


def test_table_classes_are_names_that_differ(tmp_path: Path) -> None:
    for classes in ([], ["a", "a"]):
        with pytest.raises(InputError, match="classes"):
            SOURCES.create("table", path=tmp_path, classes=classes)


# DICOM


def test_dicom_one_finding_makes_a_patient_positive(tmp_path: Path) -> None:
    source = dicom(tmp_path)
    told = {(item.path.name, item.label, item.patient) for item in source(tmp_path)}
    assert told == {("ill.dcm", "PNEUMONIA", "ill"), ("well.DICOM", "NORMAL", "well")}
    assert source.classes([]) == ("NORMAL", "PNEUMONIA")
    labels = tmp_path / "labels.csv"
    named = {"path": tmp_path / "files", "labels": labels, "negative": "z", "positive": "a"}
    assert SOURCES.create("dicom", **named).classes([]) == ("z", "a")
    with pytest.raises(InputError, match="two different"):
        SOURCES.create("dicom", **(named | {"positive": "z"}))


def test_dicom_files_need_a_label(tmp_path: Path) -> None:
    source = dicom(tmp_path, [("other", 1)])
    for number in range(3):
        (tmp_path / "files" / f"m{number}.dcm").touch()
    with pytest.raises(InputError, match=r"m0\.dcm") as caught:
        source(tmp_path)
    assert "5" in str(caught.value)
    assert "m2.dcm" not in str(caught.value)


def test_dicom_labels_without_a_file_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = dicom(tmp_path, [("ill", 1), ("well", 0), ("gone", 1), ("gone", 1), ("away", 0)])
    with caplog.at_level(logging.WARNING):
        assert len(source(tmp_path)) == 2
    assert "2 patients" in caplog.text


@pytest.mark.parametrize("target", ["", "2", "yes", "0.5"])
def test_dicom_targets_are_0_or_1(tmp_path: Path, target: str) -> None:
    source = dicom(tmp_path, [("ill", 1), ("well", target)])
    with pytest.raises(InputError, match="row 2"):
        source(tmp_path)


def test_dicom_table_needs_its_columns(tmp_path: Path) -> None:
    source = dicom(tmp_path)
    write_rows(tmp_path / "labels.csv", ["patientID", "Target"], [("ill", 1)])
    with pytest.raises(InputError, match="nearest: 'patientID'"):
        source(tmp_path)


# Hugging Face


def test_huggingface_splits_and_class_names(tmp_path: Path) -> None:
    source = huggingface(tmp_path)
    items = source(tmp_path / "work")
    assert sorted((item.split or "", item.label) for item in items) == [
        ("test", "cat"), ("test", "dog"), ("train", "cat"), ("train", "dog"),
        ("val", "cat"), ("val", "dog"),
    ]  # fmt: skip
    assert source.classes([item.label for item in items]) == ("dog", "cat", "bird")


def saved(root: Path, data: Any) -> DataSource:
    data.save_to_disk(root / "saved")
    return SOURCES.create("huggingface", id=str(root / "saved"))


def test_huggingface_keeps_every_pixel(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    deep = Image.fromarray(generator.integers(0, 65536, (16, 16), dtype=np.uint16))
    colour = noise(0)
    items = saved(tmp_path, hub_data([deep, colour], ["10", "9"]))(tmp_path / "work")
    assert [(item.label, item.split) for item in items] == [("10", None), ("9", None)]
    expected = torch.from_numpy((np.asarray(deep) / 65535).astype(np.float32))
    assert torch.equal(read_image(items[0].path)[0], expected)
    with Image.open(items[1].path) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), np.asarray(colour))


def test_huggingface_writes_only_what_is_missing(tmp_path: Path) -> None:
    source = saved(tmp_path, hub_data([noise(i) for i in range(3)], ["a", "b", "a"]))
    items = source(tmp_path / "work")
    content = items[1].path.read_bytes()
    times = [item.path.stat().st_mtime_ns for item in items]
    items[1].path.unlink()
    assert source(tmp_path / "work") == items
    assert items[1].path.read_bytes() == content
    assert items[0].path.stat().st_mtime_ns == times[0]


def test_huggingface_data_of_other_content_does_not_mix(tmp_path: Path) -> None:
    first = saved(tmp_path / "a", hub_data([noise(0)], ["a"]))(tmp_path / "work")
    second = saved(tmp_path / "b", hub_data([noise(1)], ["a"]))(tmp_path / "work")
    assert first[0].path != second[0].path
    assert not torch.equal(read_image(first[0].path), read_image(second[0].path))


def test_huggingface_errors(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="the extra [hub] is not installed")
    import datasets

    data = hub_data([noise(0), noise(1)], ["a", "b"])
    saved(tmp_path, data)
    place = str(tmp_path / "saved")
    with pytest.raises(InputError, match="nearest: 'image'"):
        SOURCES.create("huggingface", id=place, image_column="images")(tmp_path / "w")
    with pytest.raises(InputError, match="label"):
        SOURCES.create("huggingface", id=place, label_column="lable")(tmp_path / "w")
    with pytest.raises(InputError, match="images"):
        SOURCES.create("huggingface", id=place, image_column="label")(tmp_path / "w")
    datasets.DatasetDict({"train": data, "extra": data}).save_to_disk(tmp_path / "more")
    with pytest.raises(InputError, match="extra"):
        SOURCES.create("huggingface", id=str(tmp_path / "more"))(tmp_path / "w")
    missing = hub_data([noise(0), noise(1)], [0, -1], ["a", "b"])
    with pytest.raises(InputError, match="label"):
        saved(tmp_path / "c", missing)(tmp_path / "w")
    (tmp_path / "plain").mkdir()
    with pytest.raises(InputError, match="save_to_disk"):
        SOURCES.create("huggingface", id=str(tmp_path / "plain"))(tmp_path / "w")


def test_huggingface_hub_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="the extra [hub] is not installed")
    import datasets

    source = SOURCES.create("huggingface", id="nobody/nothing")
    with pytest.raises(InputError, match="data set of the hub") as caught:
        source(tmp_path)
    assert "\n" not in str(caught.value)

    def fail(*_: object, **__: object) -> None:
        raise datasets.exceptions.DatasetGenerationError("while building\nthe data set")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(InputError, match="while building the data set"):
        source(tmp_path)


def test_huggingface_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = huggingface(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'jernih\[hub\]'"):
        source(tmp_path)


# Base


def test_a_source_that_finds_nothing_or_nonsense_is_refused(tmp_path: Path) -> None:
    from jernih.data.sources import Item

    found: list[Item] = []

    class Odd(DataSource):
        name = "odd"

        def find(self, workdir: Path) -> list[Item]:
            return found

    file = picture(tmp_path / "1.png")
    cases = [
        ([], "at least one image"),
        ([Item(tmp_path / "2.png", "a")], "existing file"),
        ([Item(file, "")], "label"),
        ([Item(file, "a", "fold")], "split"),
        ([Item(file, "a"), Item(file, "b")], "once"),
    ]
    for items, said in cases:
        found[:] = items
        with pytest.raises(InputError, match=said):
            Odd()(tmp_path)


def test_unreadable_images_are_for_explore_to_find(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.png").write_text("no image")
    items = SOURCES.create("folder", path=tmp_path)(tmp_path)
    with pytest.raises(UnreadableImage):
        read_image(items[1].path)
