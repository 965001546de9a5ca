import csv
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from jernih.data.defects import REASONS, Checks, Defect
from jernih.data.explore import Exploration, class_weights, explore
from jernih.data.manifest import Manifest, Record
from jernih.data.phantom import render
from jernih.data.sources.phantom import Phantom
from jernih.validate import InputError
from tests.data.test_dicom import write as write_dicom


def manifest_of(records: list[Record], classes: tuple[str, ...] = ()) -> Manifest:
    found = classes or tuple(sorted({record.label for record in records}))
    return Manifest({"name": "test"}, found, tuple(records), 0)


def record(path: Path, label: str = "a", split: str = "train") -> Record:
    return Record(path, label, split, "", hashlib.sha256(path.read_bytes()).hexdigest())


def picture(
    path: Path, seed: int, change: Callable[[Image.Image], Image.Image] | None = None
) -> Path:
    image = Image.fromarray(
        (render(np.random.default_rng(seed), "NORMAL", 64) * 255).round().astype(np.uint8)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    (change(image) if change else image).save(path)
    return path


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    items = Phantom(images=40, size=96)(tmp_path_factory.mktemp("phantoms"))
    return manifest_of([record(item.path, item.label) for item in items])


@pytest.fixture(scope="module")
def explored(phantoms: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explored")
    explore(phantoms, folder)
    return folder


def names(defects: tuple[Defect, ...], reason: str) -> list[str]:
    return [Path(defect.path).name for defect in defects if defect.reason == reason]


def test_every_planted_defect_is_found_and_nothing_else(explored: Path) -> None:
    defects = Exploration.load(explored).defects
    single = {"unreadable": "truncated", "low information": "blank", "blurry": "blurred"}
    for reason, planted in (single | {"dark": "dark"}).items():
        (name,) = names(defects, reason)
        assert name.startswith(f"phantom-defect-{planted}-")
    exact = [d for d in defects if d.reason == "exact duplicate"]
    assert len(exact) == 2
    assert all("phantom-defect-copy-" in d.detail + d.path for d in exact)
    (near,) = [d for d in defects if d.reason == "near duplicate"]
    assert "phantom-defect-near-" in near.detail + near.path
    assert len(defects) == 7
    assert all(defect.dropped for defect in defects)


def test_sound_images_raise_no_alarm(phantoms: Manifest, tmp_path: Path) -> None:
    sound = phantoms.keep(lambda r: "defect" not in r.path.name)
    assert len(sound) == 40
    exploration = explore(sound, tmp_path)
    assert exploration.defects == ()
    assert exploration.clean(sound) == sound
    assert "defects" not in exploration.figures


def test_clean_leaves_out_what_is_dropped(phantoms: Manifest, explored: Path) -> None:
    exploration = Exploration.load(explored)
    dropped = {defect.path for defect in exploration.defects}
    kept = exploration.clean(phantoms)
    assert len(kept) == 40
    assert not {str(r.path) for r in kept.records} & dropped


def test_files_stay_as_they_are(phantoms: Manifest, tmp_path: Path) -> None:
    def state() -> list[tuple[int, str]]:
        return [
            (r.path.stat().st_mtime_ns, hashlib.sha256(r.path.read_bytes()).hexdigest())
            for r in phantoms.records
        ]

    folders = {r.path.parent for r in phantoms.records}
    before, listing = state(), [sorted(folder.iterdir()) for folder in folders]
    explore(phantoms, tmp_path)
    assert state() == before
    assert [sorted(folder.iterdir()) for folder in folders] == listing


def test_what_is_written_can_be_read(phantoms: Manifest, explored: Path, tmp_path: Path) -> None:
    exploration = Exploration.load(explored)
    exploration.save(tmp_path)
    assert Exploration.load(tmp_path) == exploration
    saved = json.loads((explored / "explore.json").read_text())
    assert saved["balance"] == phantoms.counts()
    with (explored / "defects.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["reason"] for row in rows] == [d.reason for d in exploration.defects]
    assert set(rows[0]) == {"path", "split", "label", "reason", "detail", "dropped"}
    assert {"class balance", "intensities", "samples", "defects"} == set(exploration.figures)
    for place in exploration.figures.values():
        with Image.open(explored / place) as image:
            assert min(image.size) > 100
    with pytest.raises(InputError):
        Exploration.load(tmp_path / "nowhere")


def test_progress_counts_the_images(phantoms: Manifest, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    explore(phantoms, tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(n, len(phantoms)) for n in range(1, len(phantoms) + 1)]


def test_statistics_agree_with_numpy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(10, 200, (20 + n, 30, 3), dtype=np.uint8) for n in range(3)]
    arrays[1][..., 2] = 250
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for path, array in zip(paths, arrays, strict=True):
        Image.fromarray(array).save(path)
    labels = ["a", "b", "b"]
    manifest = manifest_of([record(p, label) for p, label in zip(paths, labels, strict=True)])
    found = explore(manifest, tmp_path / "out").statistics
    assert (found["images"], found["modes"]) == (3, {"RGB": 3})
    assert found["height"] == {"min": 20, "median": 21, "max": 22}
    assert found["width"] == {"min": 30, "median": 30, "max": 30}
    pools = {
        "all": np.concatenate([array.ravel() for array in arrays]),
        "channel blue": np.concatenate([array[..., 2].ravel() for array in arrays]),
        "class a": arrays[0].ravel(),
        "class b": np.concatenate([array.ravel() for array in arrays[1:]]),
    }
    for key, pool in pools.items():
        measured, values = found["intensity"][key], pool / 255
        assert measured["mean"] == pytest.approx(values.mean(), abs=1e-3)
        assert measured["std"] == pytest.approx(values.std(), abs=1e-3)
        assert (measured["min"], measured["max"]) == pytest.approx((values.min(), values.max()))
        for q in (1, 25, 50, 75, 99):
            assert measured[f"p{q}"] == pytest.approx(np.percentile(values, q), abs=5e-3)
        assert sum(found["histograms"][key]) == pytest.approx(1)


def jpeg_copy(image: Image.Image) -> Image.Image:
    return image.point(lambda grey: grey * 0.95).resize((72, 72))


@pytest.mark.parametrize(
    ("splits", "stays"),
    [
        (("train", "val", "test"), 2),
        (("train", "val", "val"), 1),
        (("test", "test", "train"), 0),
        (("train", "train", "train"), 0),
    ],
)
def test_one_of_each_set_of_duplicates_stays(
    tmp_path: Path, splits: tuple[str, ...], stays: int
) -> None:
    paths = [
        picture(tmp_path / "a.png", 1),
        picture(tmp_path / "b.png", 1),
        picture(tmp_path / "c.jpg", 1, jpeg_copy),
    ]
    others = [record(picture(tmp_path / f"o-{s}.png", n), split=s) for n, s in enumerate(
        ("train", "val", "test"), start=5)]  # fmt: skip
    own = [record(path, split=split) for path, split in zip(paths, splits, strict=True)]
    exploration = explore(manifest_of(own + others), tmp_path / "out")
    kept = exploration.clean(manifest_of(own + others))
    assert [r.path for r in kept.records] == [paths[stays], *(r.path for r in others)]
    assert sorted(d.reason for d in exploration.defects) == ["exact duplicate", "near duplicate"]
    assert any(paths[stays].name in d.detail for d in exploration.defects)


@pytest.mark.parametrize(("split", "left"), [("test", 1), ("train", 0)])
def test_copies_with_other_labels_go_unless_tested_on(
    tmp_path: Path, split: str, left: int
) -> None:
    twins = [
        record(picture(tmp_path / "a.png", 1), "a", split),
        record(picture(tmp_path / "b.png", 1), "b", "train"),
    ]
    others = [record(picture(tmp_path / f"{n}.png", n), "ab"[n % 2]) for n in (4, 5)]
    manifest = manifest_of(twins + others)
    exploration = explore(manifest, tmp_path / "out")
    assert len(exploration.defects) == 2 - left
    assert all("conflicting labels a and b" in d.detail for d in exploration.defects)
    kept = [r for r in exploration.clean(manifest).records if r in twins]
    assert kept == twins[:left]


def test_a_spoilt_copy_does_not_oust_the_sound_one(tmp_path: Path) -> None:
    dark = picture(tmp_path / "a-dark.png", 1, lambda image: image.point(lambda v: v * 0.15))
    sound = picture(tmp_path / "b.png", 1)
    manifest = manifest_of([record(dark, split="test"), record(sound), record(picture(
        tmp_path / "c.png", 2), split="test")])  # fmt: skip
    exploration = explore(manifest, tmp_path / "out")
    assert [(Path(d.path).name, d.reason) for d in exploration.defects] == [("a-dark.png", "dark")]


def test_light_and_deep_images_are_judged_as_shown(tmp_path: Path) -> None:
    white = picture(tmp_path / "white.png", 1, lambda image: image.point(lambda v: 250 + v // 60))
    deep = tmp_path / "deep.png"
    grey = render(np.random.default_rng(1), "NORMAL", 64)
    Image.fromarray((grey * 65535).round().astype(np.uint16)).save(deep)
    twin = picture(tmp_path / "twin.png", 1)
    manifest = manifest_of([record(white), record(deep), record(twin)])
    defects = explore(manifest, tmp_path / "out").defects
    assert names(defects, "light") == ["white.png"]
    assert names(defects, "near duplicate") + names(defects, "exact duplicate") == ["twin.png"]


def test_only_the_reasons_asked_for_lead_to_leaving_out(phantoms: Manifest, tmp_path: Path) -> None:
    exploration = explore(phantoms, tmp_path, checks=Checks(drop=("unreadable",)))
    assert {d.reason for d in exploration.defects if d.dropped} == {"unreadable"}
    assert len({d.reason for d in exploration.defects}) == 6
    assert len(exploration.clean(phantoms)) == len(phantoms) - 1


def test_a_kept_split_loses_nothing_that_can_be_read(tmp_path: Path) -> None:
    paths = [picture(tmp_path / split / "1.png", 1) for split in ("train", "test")]
    twin = picture(tmp_path / "test" / "2.png", 1)
    broken = tmp_path / "test" / "3.png"
    broken.write_bytes(b"no picture")
    records = [record(path, split=path.parent.name) for path in (*paths, twin, broken)]
    manifest = manifest_of(records)
    found = explore(manifest, tmp_path / "out", checks=Checks(keep=("test",)))
    dropped = {Path(d.path).relative_to(tmp_path) for d in found.defects if d.dropped}
    assert dropped == {Path("train/1.png"), Path("test/3.png")}
    assert len(found.defects) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": ("blury",)}, "nearest: 'blurry'"),
        ({"dark": 1.5}, "checks.dark"),
        ({"near_bits": 300}, "checks.near_bits"),
    ],
)
def test_wrong_checks_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Checks(**options)  # type: ignore[arg-type]


def defect(of: Record) -> Defect:
    return Defect(str(of.path), of.split, of.label, REASONS[0], "", True)


def test_clean_refuses_to_empty_a_split_or_a_class(tmp_path: Path) -> None:
    path = picture(tmp_path / "x.png", 1)
    records = [
        replace(record(path), path=tmp_path / f"{n}.png", label=label, split=split)
        for n, (label, split) in enumerate(
            [("a", "train"), ("a", "train"), ("b", "train"), ("a", "test")]
        )
    ]
    manifest = manifest_of(records)

    def without(number: int) -> Exploration:
        return Exploration(manifest.counts(), {}, (defect(records[number]),), {})

    assert len(without(0).clean(manifest)) == 3
    with pytest.raises(InputError, match=r"class 'b'.*train"):
        without(2).clean(manifest)
    with pytest.raises(InputError, match="test split"):
        without(3).clean(manifest)
    assert without(0).imbalance() == 2


def test_unreadable_files_alone_end_in_a_plain_error(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"no image")
    manifest = manifest_of([record(path)])
    exploration = explore(manifest, tmp_path / "out")
    with pytest.raises(InputError, match="train split"):
        exploration.clean(manifest)


def test_class_weights_balance_the_training_split(tmp_path: Path) -> None:
    path = picture(tmp_path / "x.png", 1)
    labels = ["a"] * 6 + ["c"] * 2
    manifest = manifest_of(
        [record(path, label) for label in labels] + [record(path, "b", "test")], ("a", "b", "c")
    )
    weights = class_weights(manifest)
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.0, 1.5]))
    with pytest.raises(InputError, match="train split"):
        class_weights(manifest.split("test"))


def test_many_classes_get_one_grid(tmp_path: Path) -> None:
    records = [record(picture(tmp_path / f"{n}.png", n), f"c{n:02d}") for n in range(14)]
    exploration = explore(manifest_of(records), tmp_path / "out")
    assert not any(key.startswith("class") for key in exploration.statistics["intensity"])
    assert exploration.imbalance() == 1


@pytest.mark.parametrize("counts", [{"a": 5, "b": 1}, {"a": 3, "b": 4, "c": 8}])
def test_class_weights_are_in_proportion_to_sklearns(
    tmp_path: Path, counts: dict[str, int]
) -> None:
    path = picture(tmp_path / "x.png", 1)
    labels = [label for label, count in counts.items() for _ in range(count)]
    weights = class_weights(manifest_of([record(path, label) for label in labels])).numpy()
    expected = compute_class_weight("balanced", classes=np.array(sorted(counts)), y=labels)
    np.testing.assert_allclose(weights / weights[0], expected / expected[0], rtol=1e-6)
    assert weights.mean() == pytest.approx(1)


def test_noise_of_every_depth_and_format_is_sound(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 65536, (64, 64), dtype=np.uint16)
    Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "rgb.png")
    Image.fromarray(deep).save(tmp_path / "deep.png")
    twelve = rng.integers(0, 4096, (64, 64)).astype(np.uint16)
    write_dicom(tmp_path / "radiograph.dcm", twelve, BitsStored=12)
    manifest = manifest_of([record(path) for path in sorted(tmp_path.iterdir())])
    exploration = explore(manifest, tmp_path / "out")
    assert exploration.defects == ()
    assert exploration.statistics["modes"] == {
        "I;16": 1, "L": 1, "MONOCHROME2, 16 bits": 1, "RGB": 1,
    }  # fmt: skip
    assert exploration.statistics["images"] == 4


def test_an_unreadable_dicom_file_is_named_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "junk.dcm").write_bytes(b"junk" * 50)
    records = [record(tmp_path / "junk.dcm"), record(picture(tmp_path / "x.png", 1))]
    (found,) = explore(manifest_of(records), tmp_path / "out").defects
    assert (found.reason, found.detail, found.dropped) == ("unreadable", "not a DICOM file", True)
