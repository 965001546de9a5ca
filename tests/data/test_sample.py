from __future__ import annotations

import logging
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jernih.data.manifest import Manifest
from jernih.data.sample import SplitPlan, sample
from jernih.data.sources import DataSource, Item
from jernih.storage import sha256_file
from jernih.validate import InputError


class Listed(DataSource):
    """Items that are given; the files hold their own name."""

    name = "listed"

    def __init__(self, items: Iterable[Item], label_space: tuple[str, ...] = ()) -> None:
        self.items = list(items)
        self.label_space = label_space

    def find(self, workdir: Path) -> list[Item]:
        return self.items

    def classes(self, labels: Any) -> tuple[str, ...]:
        return self.label_space or super().classes(labels)


def listed(root: Path, *rows: tuple[str, str, str | None, int]) -> Listed:
    """A source of ``count`` images for each (label, patient, split, count)."""
    items: list[Item] = []
    for label, patient, split, count in rows:
        for _ in range(count):
            path = root / f"{len(items):04d}.png"
            path.write_text(path.name)
            items.append(Item(path, label, split, patient))
    return Listed(items)


def by_split(manifest: Manifest) -> dict[str, int]:
    return {name: sum(counts.values()) for name, counts in manifest.counts().items()}


patients = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 5), st.booleans()), min_size=1, max_size=40
)
shares = st.sampled_from([0.0, 0.1, 0.2, 0.35, 0.5])


@settings(max_examples=60, deadline=None)
@given(groups=patients, test=shares, val=shares, stratify=st.booleans(), seed=st.integers(0, 9))
def test_splits_of_any_patients(
    groups: list[tuple[str, int, bool]], test: float, val: float, stratify: bool, seed: int
) -> None:
    # Three or more patients of each class, so that each split can have one.
    groups = groups + [(label, 1, True) for label in "abc"] * 3
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            (label, f"p{number}" if known else "", None, count)
            for number, (label, count, known) in enumerate(groups)
        ]
        source = listed(Path(folder), *rows)
        plan = SplitPlan(test=test, val=val, stratify=stratify, seed=seed)
        manifest = sample(source, plan, Path(folder))
        assert sample(source, plan, Path(folder)) == manifest
    # Every image once, as it was given.
    assert [(r.path, r.label, r.patient) for r in manifest.records] == [
        (item.path, item.label, item.patient) for item in source.items
    ]
    # Every patient on one side.
    sides = defaultdict(set)
    for record in manifest.records:
        if record.patient:
            sides[record.patient].add(record.split)
    assert all(len(side) == 1 for side in sides.values())
    # Sizes near the shares: off by less than the largest patient for each class.
    sizes = by_split(manifest)
    largest = max(count for _, count, _ in groups)
    slack = largest * (3 if stratify else 1)
    assert abs(sizes["test"] - test * len(manifest)) <= slack + 1.5
    assert abs(sizes["val"] - val * (len(manifest) - sizes["test"])) <= slack + 1.5
    assert sizes["train"] > 0
    assert (sizes["test"] > 0) == (test > 0)
    assert (sizes["val"] > 0) == (val > 0)
    if stratify:
        wanted = {"train"} | {name for name, share in (("test", test), ("val", val)) if share}
        for name in wanted:
            assert set(manifest.counts()[name]) == {"a", "b", "c"}


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(10, 60), min_size=2, max_size=4),
    share=st.sampled_from([0.1, 0.2, 0.5]),
    seed=st.integers(0, 9),
)
def test_stratified_shares_hold_in_every_class(counts: list[int], share: float, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = [(f"c{number}", "", None, count) for number, count in enumerate(counts)]
        plan = SplitPlan(test=share, val=0, seed=seed)
        manifest = sample(listed(Path(folder), *rows), plan, Path(folder))
    for number, count in enumerate(counts):
        assert manifest.counts()["test"][f"c{number}"] == max(round(share * count), 1)


def test_another_seed_splits_otherwise(tmp_path: Path) -> None:
    source = listed(tmp_path, ("a", "", None, 40), ("b", "", None, 40))
    splits = {
        tuple(record.split for record in sample(source, SplitPlan(seed=seed), tmp_path).records)
        for seed in range(5)
    }
    assert len(splits) == 5


def test_the_share_of_validation_is_of_what_remains(tmp_path: Path) -> None:
    source = listed(tmp_path, ("a", "", None, 100), ("b", "", None, 100))
    manifest = sample(source, SplitPlan(test=0.5, val=0.1), tmp_path)
    assert by_split(manifest) == {"train": 90, "val": 10, "test": 100}


def test_records_carry_hash_source_classes_and_seed(tmp_path: Path) -> None:
    source = listed(tmp_path, ("b", "p", None, 5), ("a", "q", None, 5), ("a", "", None, 5),
                    ("b", "", None, 5))  # fmt: skip
    source.label_space = ("b", "none", "a")
    calls: list[tuple[int, int]] = []
    manifest = sample(source, SplitPlan(seed=3), tmp_path, lambda n, of: calls.append((n, of)))
    assert manifest.seed == 3
    assert manifest.classes == ("b", "none", "a")
    assert manifest.source["name"] == "listed"
    assert all(record.sha256 == sha256_file(record.path) for record in manifest.records)
    assert calls == [(number, 20) for number in range(1, 21)]


def test_given_splits_are_kept(tmp_path: Path) -> None:
    source = listed(tmp_path, ("a", "", "train", 6), ("b", "", "train", 6), ("a", "", "val", 2),
                    ("b", "", "test", 3))  # fmt: skip
    manifest = sample(source, SplitPlan(test=0.5, val=0.5), tmp_path)
    assert [record.split for record in manifest.records] == [item.split for item in source.items]


def test_validation_is_carved_from_training_by_patient(tmp_path: Path) -> None:
    rows = [("a" if n % 2 else "b", f"p{n}", "train", 4) for n in range(20)]
    source = listed(tmp_path, *rows, ("a", "t1", "test", 5), ("b", "t2", "test", 5))
    manifest = sample(source, SplitPlan(test=0.5, val=0.2), tmp_path)
    assert by_split(manifest) == {"train": 64, "val": 16, "test": 10}
    assert {record.patient for record in manifest.split("test").records} == {"t1", "t2"}
    counts = Counter(record.patient for record in manifest.split("val").records)
    assert set(counts.values()) == {4}


def test_an_image_without_a_split_follows_its_patient(tmp_path: Path) -> None:
    rows = [("a", f"p{n}", None, 2) for n in range(10)]
    source = listed(tmp_path, *rows, ("a", "p0", "test", 1), ("a", "p1", "val", 1))
    manifest = sample(source, SplitPlan(), tmp_path)
    sides = {(r.patient, r.split) for r in manifest.records if r.patient in ("p0", "p1")}
    assert sides == {("p0", "test"), ("p1", "val")}
    assert by_split(manifest) == {"train": 16, "val": 3, "test": 3}


def test_one_image_a_class_is_split_without_regard_to_class(tmp_path: Path) -> None:
    source = listed(tmp_path, *((f"n{number:03d}", "", None, 1) for number in range(239)))
    manifest = sample(source, SplitPlan(stratify=False), tmp_path)
    assert by_split(manifest) == {"train": 172, "val": 19, "test": 48}
    assert len(manifest.classes) == 239


def test_a_class_that_cannot_be_split_is_named(tmp_path: Path) -> None:
    source = listed(tmp_path, ("common", "", None, 20), ("rare", "", None, 1))
    with pytest.raises(InputError, match=r"'rare'.*stratify"):
        sample(source, SplitPlan(), tmp_path)
    # Several images of a single patient cannot be on both sides either.
    source = listed(tmp_path, ("common", "", None, 20), ("rare", "p", None, 9))
    with pytest.raises(InputError, match=r"'rare'.*stratify"):
        sample(source, SplitPlan(), tmp_path)


def test_limits_keep_the_proportions(tmp_path: Path) -> None:
    rows = [("a", "", "train", 60), ("b", "", "train", 30), ("c", "", "train", 10)]
    source = listed(tmp_path, *rows, ("a", "", "test", 20), ("b", "", "test", 20))
    plan = SplitPlan(val=0, limit={"train": 50, "test": 10})
    manifest = sample(source, plan, tmp_path)
    assert manifest.counts() == {
        "train": {"a": 30, "b": 15, "c": 5}, "val": {}, "test": {"a": 5, "b": 5},
    }  # fmt: skip
    assert sample(source, plan, tmp_path) == manifest
    other = sample(source, SplitPlan(val=0, limit={"train": 50, "test": 10}, seed=1), tmp_path)
    assert other.counts() == manifest.counts()
    assert other.records != manifest.records


def test_a_limit_does_not_change_the_splits(tmp_path: Path) -> None:
    source = listed(tmp_path, ("a", "", None, 50), ("b", "", None, 50))
    whole = {r.path: r.split for r in sample(source, SplitPlan(), tmp_path).records}
    limited = sample(source, SplitPlan(limit={"train": 10, "val": 2, "test": 4}), tmp_path)
    assert by_split(limited) == {"train": 10, "val": 2, "test": 4}
    assert all(whole[record.path] == record.split for record in limited.records)


def test_a_limit_beyond_the_split_takes_all(tmp_path: Path) -> None:
    source = listed(tmp_path, ("a", "", None, 10), ("b", "", None, 10))
    plan = SplitPlan(limit={"train": 1000, "test": 1000})
    assert len(sample(source, plan, tmp_path)) == 20


def test_shared_patients_of_a_given_split_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [("a", f"p{n}", split, 1) for n in range(3) for split in ("train", "test")]
    source = listed(tmp_path, *rows, ("b", "q", "train", 5), ("b", "r", "test", 5))
    with caplog.at_level(logging.WARNING):
        manifest = sample(source, SplitPlan(val=0), tmp_path)
    assert "3 patient" in caplog.text
    assert [record.split for record in manifest.records] == [item.split for item in source.items]


def test_separate_patients_raise_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = listed(tmp_path, *(("a" if n % 2 else "b", f"p{n}", None, 3) for n in range(20)))
    with caplog.at_level(logging.WARNING):
        sample(source, SplitPlan(), tmp_path)
    assert caplog.records == []


def test_labels_outside_the_label_space_are_refused(tmp_path: Path) -> None:
    source = listed(tmp_path, ("a", "", None, 10), ("b", "", None, 10))
    source.label_space = ("a", "c")
    with pytest.raises(InputError, match="got b"):
        sample(source, SplitPlan(), tmp_path)


def test_a_source_without_training_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train"):
        sample(listed(tmp_path, ("a", "", "test", 10)), SplitPlan(), tmp_path)
    with pytest.raises(InputError, match="train"):
        sample(listed(tmp_path, ("a", "", "test", 10)), SplitPlan(val=0), tmp_path)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SplitPlan(test=1.0),
        lambda: SplitPlan(test=-0.1),
        lambda: SplitPlan(val=1.5),
        lambda: SplitPlan(limit={"train": 0}),
        lambda: SplitPlan(limit={"trian": 5}),
    ],
)
def test_plans_out_of_range_are_refused(make: Callable[[], SplitPlan]) -> None:
    with pytest.raises(InputError, match="split"):
        make()
