import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from jernih.data.images import UnreadableImage, read_image
from jernih.data.phantom import LABELS, Patient, expose, render
from jernih.data.phantom.thickness import BONE, LUNG, SOFT
from jernih.data.sources.phantom import Phantom
from jernih.validate import InputError


def drawn(seed: int, label: str = "NORMAL", size: int = 64) -> np.ndarray:
    return render(np.random.default_rng(seed), label, size)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("size", [32, 77, 224])
def test_an_image_has_the_promised_form(label: str, size: int) -> None:
    image = drawn(3, label, size)
    assert image.shape == (size, size)
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() <= 1
    assert image.std() > 0.1


def test_the_seed_decides_everything() -> None:
    np.testing.assert_array_equal(drawn(5), drawn(5))
    assert np.abs(drawn(5) - drawn(6)).mean() > 0.02


def test_the_global_generator_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    drawn(0)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002


def test_the_picture_is_a_chest() -> None:
    mean = np.mean([drawn(seed, size=96) for seed in range(12)], axis=0)
    lungs = np.concatenate([mean[40:55, 20:32].ravel(), mean[40:55, 64:76].ravel()])
    spine, belly = mean[60:90, 46:50], mean[88:, 36:60]
    assert lungs.mean() + 0.25 < spine.mean()
    assert lungs.mean() + 0.25 < belly.mean()
    # The heart lies towards the patient's left, on the right of the picture.
    assert mean[58:66, 58:66].mean() > mean[58:66, 30:38].mean() + 0.1


def test_tissues_attenuate_in_the_right_order() -> None:
    assert LUNG < SOFT < BONE


def test_two_exposures_show_the_same_patient() -> None:
    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(1 - np.corrcoef(a.ravel(), b.ravel())[0, 1])

    people = [Patient.draw(np.random.default_rng(seed), "NORMAL") for seed in range(8)]
    first = [expose(who, np.random.default_rng([9, n]), 64) for n, who in enumerate(people)]
    second = [expose(who, np.random.default_rng([8, n]), 64) for n, who in enumerate(people)]
    same = np.median([distance(a, b) for a, b in zip(first, second, strict=True)])
    others = np.median(
        [distance(a, b) for i, a in enumerate(first) for j, b in enumerate(second) if i != j]
    )
    assert 0 < same < others


def test_only_pneumonia_has_lesions() -> None:
    rng = np.random.default_rng(0)
    assert all(not Patient.draw(rng, "NORMAL").lesions for _ in range(20))
    sick = [Patient.draw(rng, "PNEUMONIA") for _ in range(40)]
    assert all(who.lesions for who in sick)
    assert {lesion.kind for who in sick for lesion in who.lesions} == {
        "consolidation",
        "interstitial",
    }


def test_a_lesion_brightens_the_lung_and_nothing_else() -> None:
    import dataclasses

    rng = np.random.default_rng(1)
    sick = Patient.draw(rng, "PNEUMONIA")
    well = dataclasses.replace(sick, label="NORMAL", lesions=())
    difference = expose(sick, np.random.default_rng(2), 96) - expose(
        well, np.random.default_rng(2), 96
    )
    assert difference.max() > 0.05
    assert np.abs(difference[:4]).max() < 0.05


def test_classes_can_be_learnt_from_coarse_images() -> None:
    labels = np.arange(160) % 2
    coarse = np.stack(
        [
            drawn(1000 + n, LABELS[label]).reshape(8, 8, 8, 8).mean((1, 3)).ravel()
            for n, label in enumerate(labels)
        ]
    )
    learner = LogisticRegression(C=10, max_iter=2000).fit(coarse[:100], labels[:100])
    accuracy = learner.score(coarse[100:], labels[100:])
    assert 0.7 < accuracy < 1


@pytest.mark.parametrize(
    ("argument", "value"), [("label", "HEALTHY"), ("size", 16), ("size", 4096)]
)
def test_wrong_arguments_are_named(argument: str, value: object) -> None:
    options = {"label": "NORMAL", "size": 64} | {argument: value}
    with pytest.raises(InputError, match=argument):
        render(np.random.default_rng(0), **options)  # type: ignore[arg-type]


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_source_makes_what_was_asked(tmp_path: Path) -> None:
    items = Phantom(images=20, size=32, pneumonia=0.25)(tmp_path)
    sound = [item for item in items if "defect" not in item.path.name]
    assert len(sound) == 20
    assert sum(item.label == "PNEUMONIA" for item in sound) == 5
    for item in sound:
        assert tuple(read_image(item.path).shape) == (3, 32, 32)
        with Image.open(item.path) as image:
            assert image.mode == "L"
    labels: dict[str, set[str]] = {}
    for item in items:
        assert item.patient
        labels.setdefault(item.patient, set()).add(item.label)
    assert all(len(found) == 1 for found in labels.values())
    assert len(labels) < 20


def test_source_plants_its_defects(tmp_path: Path) -> None:
    items = Phantom(images=12, size=48)(tmp_path)
    sound = digests(tmp_path)
    planted = {
        item.path.name.split("-of-")[0].removeprefix("phantom-defect-"): item
        for item in items
        if item.path.name.startswith("phantom-defect-")
    }
    assert set(planted) == {"copy-a", "copy-b", "near", "truncated", "blank", "blurred", "dark"}
    for name in ("copy-a", "copy-b"):
        twins = [n for n, d in sound.items() if d == sound[planted[name].path.name]]
        assert len(twins) == 2
        (original,) = [item for item in items if item.path.name in twins and item != planted[name]]
        assert (original.patient, original.label) == (planted[name].patient, planted[name].label)
    with pytest.raises(UnreadableImage):
        read_image(planted["truncated"].path)
    assert read_image(planted["blank"].path).std() == 0
    assert read_image(planted["dark"].path).max() < 0.15
    blurred = read_image(planted["blurred"].path)
    assert (blurred[:, 1:] - blurred[:, :-1]).abs().max() < 0.1


def test_source_without_defects(tmp_path: Path) -> None:
    assert len(Phantom(images=4, size=32, defects=False)(tmp_path)) == 4


def test_source_goes_on_where_it_stopped(tmp_path: Path) -> None:
    source = Phantom(images=12, size=32)
    items = source(tmp_path)
    before = digests(tmp_path)
    times = {item.path: item.path.stat().st_mtime_ns for item in items}
    gone = {items[1].path, items[-1].path}
    for path in gone:
        path.unlink()
    assert source(tmp_path) == items
    assert digests(tmp_path) == before
    kept = {path: time for path, time in times.items() if path not in gone}
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_source_keeps_other_options_apart(tmp_path: Path) -> None:
    one = Phantom(images=4, size=32, seed=0, defects=False)(tmp_path)
    two = Phantom(images=4, size=32, seed=1, defects=False)(tmp_path)
    assert not {item.path for item in one} & {item.path for item in two}
    assert {item.path.read_bytes() for item in one} != {item.path.read_bytes() for item in two}


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"images": 3}, "images"),
        ({"images": 10.5}, "images"),
        ({"size": 31}, "size"),
        ({"pneumonia": 0}, "pneumonia"),
        ({"pneumonia": 1.0}, "pneumonia"),
        ({"seed": -1}, "seed"),
    ],
)
def test_source_refuses_wrong_options(options: dict[str, float], argument: str) -> None:
    with pytest.raises(InputError, match=argument):
        Phantom(**options)  # type: ignore[arg-type]
