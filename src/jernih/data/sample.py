"""Sample: from a data source to a manifest with splits that keep every patient on one side."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jernih.data.manifest import SPLITS, Manifest, Record
from jernih.data.sources.base import DataSource, Item
from jernih.randomness import derive_seed
from jernih.storage import sha256_file
from jernih.validate import InputError, check_choice, check_number

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitPlan:
    """How to split images where the source does not say.

    Attributes:
        test: share of the images for testing.
        val: share of what remains for validation.
        stratify: keep the share in every class.
        seed: seed of the choice.
        limit: largest number of images of a split; a subset is drawn, class by class.

    Raises:
        InputError: for shares outside [0, 1) and limits below one.
    """

    test: float = 0.2
    val: float = 0.1
    stratify: bool = True
    seed: int = 0
    limit: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, share in (("test", self.test), ("val", self.val)):
            if check_number(f"split.{name}", share, 0, 1) == 1:
                raise InputError(f"split.{name}", "a share in [0, 1)", share)
        for name, count in self.limit.items():
            check_choice("split.limit", name, SPLITS)
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise InputError(f"split.limit.{name}", "a whole number from 1 on", count)


def sample(
    source: DataSource,
    plan: SplitPlan,
    workdir: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Read a source into a manifest.

    A split that the source names is kept as it is. Where it names no test split, a share of the
    training images becomes one, and likewise for validation. All images of a patient go to the
    same side; an image without a patient stands for itself.

    Args:
        source: where the images come from.
        plan: shares, seed and limits.
        workdir: folder for a source that makes or fetches files.
        progress: called with the number of files hashed so far and in all.

    Raises:
        InputError: for a source without images, and for a class with too few images or patients
            to stand on every side.
    """
    items = source(workdir)
    classes = source.classes([item.label for item in items])
    unknown = sorted({item.label for item in items} - set(classes))
    if unknown:
        raise InputError("labels", "labels among the classes", ", ".join(unknown[:3]))
    splits = _assign(items, plan)
    _warn_of_shared_patients(items, splits)
    chosen = _limited(items, splits, plan)
    records = []
    for number, place in enumerate(chosen, start=1):
        item = items[place]
        digest = sha256_file(item.path)
        records.append(Record(item.path, item.label, splits[place], item.patient, digest))
        if progress is not None:
            progress(number, len(chosen))
    return Manifest(source.describe(), classes, tuple(records), plan.seed)


def _assign(items: Sequence[Item], plan: SplitPlan) -> list[str]:
    """Give every image its split."""
    sides = {item.patient: item.split for item in items if item.patient and item.split}
    # An image without a split goes where the source has put its patient.
    splits = [item.split or sides.get(item.patient) or "train" for item in items]
    given = {item.split for item in items} - {None}
    shares = {"test": plan.test, "val": plan.val}
    carved = [name for name, share in shares.items() if share > 0 and name not in given]
    for number, name in enumerate(carved):
        pool = [place for place, split in enumerate(splits) if split == "train"]
        if not pool:
            raise InputError(
                f"split.{name}", "training images to take a share of", "a source without any"
            )
        for place in _share(items, pool, name, shares[name], len(carved) - number, plan):
            splits[place] = name
    if "train" not in splits:
        raise InputError("split", "images for training", "none left")
    return splits


def _share(
    items: Sequence[Item],
    pool: Sequence[int],
    name: str,
    share: float,
    keep: int,
    plan: SplitPlan,
) -> list[int]:
    """Choose about a share of the pool, patient by patient, and leave ``keep`` of them at least."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place in pool:
        patient = items[place].patient
        groups[f"patient {patient}" if patient else f"image {items[place].path}"].append(place)
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for group in groups.values():
        label = Counter(items[place].label for place in group).most_common(1)[0][0]
        strata[label if plan.stratify else ""].append(group)
    taken: list[int] = []
    for label, members in sorted(strata.items()):
        if len(members) <= keep:
            raise InputError(
                f"class {label!r}" if plan.stratify else "images",
                f"{keep + 1} or more images or patients, one for each split",
                len(members),
                "set split.stratify to false to split without regard to class"
                if plan.stratify
                else "",
            )
        # At least one on every side, so that every class is met in every split.
        left = max(round(share * sum(map(len, members))), 1)
        spare = len(members) - keep
        size = len(taken)
        order = np.random.default_rng(derive_seed(plan.seed, "split", name, label))
        for number in order.permutation(len(members)):
            group = members[number]
            if left > 0 and spare > 0 and len(group) <= 2 * left:
                taken.extend(group)
                left -= len(group)
                spare -= 1
        if len(taken) == size:  # every group is far larger than the share
            taken.extend(sorted(members, key=len)[0])
    return taken


def _limited(items: Sequence[Item], splits: Sequence[str], plan: SplitPlan) -> list[int]:
    """Choose a subset of each limited split with the classes in proportion."""
    chosen: list[int] = []
    for name in SPLITS:
        places = [place for place, split in enumerate(splits) if split == name]
        limit = plan.limit.get(name)
        if limit is not None:
            labels = [items[place].label for place in places]
            drawn = draw(labels, limit, derive_seed(plan.seed, "limit", name))
            places = [places[number] for number in drawn]
        chosen.extend(places)
    return sorted(chosen)


def draw(labels: Sequence[str], limit: int, seed: int) -> list[int]:
    """Choose at most ``limit`` places, in order, with the labels in proportion."""
    if limit >= len(labels):
        return list(range(len(labels)))
    classes: dict[str, list[int]] = defaultdict(list)
    for place in np.random.default_rng(seed).permutation(len(labels)):
        classes[labels[place]].append(int(place))
    # Taking by relative rank within the class keeps the proportions at any limit; the first of each
    # class goes before all others where the limit has room for them.
    room = limit >= len(classes)
    ranked = sorted(
        (room and rank > 0, (rank + 0.5) / len(members), label, place)
        for label, members in classes.items()
        for rank, place in enumerate(members)
    )
    return sorted(ranks[-1] for ranks in ranked[:limit])


def _warn_of_shared_patients(items: Sequence[Item], splits: Sequence[str]) -> None:
    """Say how many patients a given split puts on both sides; it is not ours to move them."""
    sides: dict[str, set[str]] = defaultdict(set)
    for item, split in zip(items, splits, strict=True):
        if item.patient:
            sides[item.patient].add("test" if split == "test" else "train or val")
    shared = sum(len(where) > 1 for where in sides.values())
    if shared:
        log.warning(
            "the source's own split has %d patient names both in test and outside it", shared
        )
