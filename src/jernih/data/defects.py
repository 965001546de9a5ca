"""Images that had better not be learnt from, or tested on: found, named, never touched."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from jernih.data.images import UnreadableImage, describe_image, read_image, write_png
from jernih.data.manifest import Manifest, Record
from jernih.validate import check_choice

REASONS = (
    "unreadable", "exact duplicate", "near duplicate", "blurry", "dark", "light", "low information",
)  # fmt: skip
_SPLIT_RANK = {"test": 0, "val": 1, "train": 2}


@dataclass(frozen=True)
class Defect:
    """Something wrong with one image.

    Attributes:
        path: the file.
        split: its split.
        label: its class.
        reason: one of :data:`REASONS`.
        detail: the score, the twin, or what could not be read.
        dropped: whether the image is left out of what follows.
    """

    path: str
    split: str
    label: str
    reason: str
    detail: str
    dropped: bool


@dataclass(frozen=True)
class Checks:
    """What counts as a defect.

    The scores are cleanvision's, from 0 (bad) to 1 (good); an image below the threshold has the
    defect. The thresholds are milder than cleanvision's own for blur, since radiographs are soft
    by nature.

    Attributes:
        blurry: threshold of sharpness.
        dark: threshold of brightness.
        light: threshold of darkness.
        low_information: threshold of entropy.
        hash_size: side of the perceptual hash; images with equal hashes are near duplicates. A
            larger one tells more images apart.
        drop: the reasons for which images are left out; the others are only listed.

    Raises:
        InputError: for an unknown reason.
    """

    blurry: float = 0.2
    dark: float = 0.2
    light: float = 0.05
    low_information: float = 0.3
    hash_size: int = 8
    drop: Sequence[str] = field(default=REASONS)

    def __post_init__(self) -> None:
        for reason in self.drop:
            check_choice("explore.drop", reason, REASONS)


def find_defects(
    manifest: Manifest,
    checks: Checks,
    *,
    seen: Callable[[Record, Tensor], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Defect, ...]:
    """Look at every image once and list the defects.

    Args:
        manifest: the images.
        checks: what counts.
        seen: called with every image that can be read, for statistics.
        progress: called with the number of images read and in all.

    Returns:
        the defects, by image; an image can have several.
    """
    defects = []
    readable: list[Record] = []
    views: list[str] = []
    with tempfile.TemporaryDirectory(prefix="jernih-explore-") as temporary:
        for number, record in enumerate(manifest.records, start=1):
            try:
                image = read_image(record.path)
            except UnreadableImage as error:
                defects.append(_defect(record, "unreadable", error.reason, checks))
            else:
                readable.append(record)
                views.append(_view(record, image, Path(temporary)))
                if seen is not None:
                    seen(record, image)
            if progress is not None:
                progress(number, len(manifest))
        if readable:
            issues, twins = _inspect(views, checks)
            defects += _poor(readable, views, issues, checks)
            defects += _twins(readable, views, twins, checks)
    order = {str(record.path): number for number, record in enumerate(manifest.records)}
    return tuple(sorted(defects, key=lambda d: (order[d.path], REASONS.index(d.reason))))


def _defect(record: Record, reason: str, detail: str, checks: Checks) -> Defect:
    dropped = reason in checks.drop
    return Defect(str(record.path), record.split, record.label, reason, detail, dropped)


def _view(record: Record, image: Tensor, folder: Path) -> str:
    """A file that cleanvision can open: the image itself, or an 8-bit copy of a deeper one."""
    if describe_image(record.path).mode in ("L", "RGB", "RGBA", "P"):
        return str(record.path)
    return str(write_png(folder / f"{record.sha256}-{record.path.stem}.png", image))


def _inspect(
    views: Sequence[str], checks: Checks
) -> tuple[pd.DataFrame, dict[str, list[list[str]]]]:
    """Run cleanvision; returns scores by file, and the sets of exact and near duplicates."""
    from cleanvision import Imagelab

    issue_types: dict[str, dict[str, Any]] = {
        name: {"threshold": getattr(checks, name)}
        for name in ("blurry", "dark", "light", "low_information")
    }
    issue_types |= {"exact_duplicates": {}, "near_duplicates": {"hash_size": checks.hash_size}}
    # It draws its own progress bars and leans on interfaces that pandas is retiring.
    quiet = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
    ):
        warnings.simplefilter("ignore")
        lab = Imagelab(filepaths=sorted(set(views)), verbose=False)
        lab.find_issues(issue_types, n_jobs=1, verbose=False)
    sets = {kind: lab.info[kind]["sets"] for kind in ("exact_duplicates", "near_duplicates")}
    return lab.issues, sets


def _poor(
    records: Sequence[Record], views: Sequence[str], issues: pd.DataFrame, checks: Checks
) -> Iterable[Defect]:
    for record, view in zip(records, views, strict=True):
        for name in ("blurry", "dark", "light", "low_information"):
            if bool(issues.loc[view, f"is_{name}_issue"]):
                score = float(str(issues.loc[view, f"{name}_score"]))
                detail = f"score {score:.3f} below {getattr(checks, name):g}"
                yield _defect(record, name.replace("_", " "), detail, checks)


def _twins(
    records: Sequence[Record],
    views: Sequence[str],
    sets: dict[str, list[list[str]]],
    checks: Checks,
) -> Iterable[Defect]:
    """Name all but one of each set of duplicates.

    The one that stays is a test image where there is one, so that published test splits stay
    whole and training loses what would leak; otherwise a validation image, otherwise the first.
    Where the copies' labels differ, nobody knows which is right, and only a test image stays.
    """
    named = set()
    by_view = dict(zip(views, records, strict=True))
    for kind, reason in (
        ("exact_duplicates", "exact duplicate"),
        ("near_duplicates", "near duplicate"),
    ):
        for members in sets[kind]:
            group = sorted(
                (by_view[view] for view in members),
                key=lambda record: (_SPLIT_RANK[record.split], str(record.path)),
            )
            first = group[0]
            conflict = len({record.label for record in group}) > 1
            stays = 0 if conflict and first.split != "test" else 1
            for record in group[stays:]:
                if record.path in named:
                    continue
                named.add(record.path)
                twin = first if record is not first else group[1]
                detail = f"of {twin.path.name} ({twin.split})"
                detail += f", labelled {twin.label}: conflicting labels" if conflict else ""
                yield _defect(record, reason, detail, checks)
