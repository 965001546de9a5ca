"""Images that had better not be learnt from, or tested on: found, named, never touched."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from jernih.data.images import UnreadableImage, read_image
from jernih.data.manifest import SPLITS, Manifest, Record
from jernih.validate import check_choice, check_number

REASONS = (
    "unreadable", "exact duplicate", "near duplicate", "blurry", "dark", "light", "low information",
)  # fmt: skip
_SPLIT_RANK = {"test": 0, "val": 1, "train": 2}
_HASH_SIDE = 16
_BLUR_SIDE = 64


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

    Four scores follow cleanvision, from 0 (bad) to 1 (good); an image below the threshold has the
    defect. The defaults leave alone each of 5,840 paediatric chest radiographs and 2,182
    photographs (ImageNet, BSDS) that they were tried on, and find images that are heavily blurred,
    nearly black, nearly white or empty. The lowest scores met are given below.

    Copies that were compressed again, rescaled or brightened a little are found by a perceptual
    hash (pHash) of 256 bits. Such copies of those radiographs differ in at most 14 bits (median 2),
    the two most alike radiographs otherwise in 38, so that a bound of 16 gave no false alarm.
    Equality of the usual hash of 64 bits missed one such copy in eight, and allowing it 2 bits of
    difference took 11 pairs of different patients for copies.

    Attributes:
        blurry: threshold of the strength of edges at 64 pixels across; lowest: 0.11 (radiographs),
            0.14 (photographs).
        dark: threshold of the brightness that 1 % of pixels exceed; lowest: 0.51, 0.35.
        light: threshold of 1 less the brightness that 5 % of pixels stay below; lowest: 0.30, 0.06.
        low_information: threshold of the entropy of grey levels, tens of bits; lowest: 0.60, 0.36.
        near_bits: most bits in which the hashes of near duplicates differ, of 256.
        drop: the reasons for which images are left out; the others are only listed.
        keep: the splits of which no readable image is left out: a published test split has to
            stay whole to be compared with.

    Raises:
        InputError: for an unknown reason or a threshold out of range.
    """

    blurry: float = 0.08
    dark: float = 0.25
    light: float = 0.03
    low_information: float = 0.3
    near_bits: int = 16
    drop: Sequence[str] = REASONS
    keep: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("blurry", "dark", "light", "low_information"):
            check_number(f"checks.{name}", getattr(self, name), 0, 1)
        check_number("checks.near_bits", self.near_bits, 0, _HASH_SIDE**2)
        for reason in self.drop:
            check_choice("explore.drop", reason, REASONS)
        for split in self.keep:
            check_choice("explore.keep", split, SPLITS)


@dataclass(frozen=True)
class _Look:
    """What is kept of an image once it was looked at: a few hundred bytes."""

    record: Record
    scores: dict[str, float]
    digest: str
    bits: NDArray[np.bool_]


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
    defects: list[Defect] = []
    looks: list[_Look] = []
    for number, record in enumerate(manifest.records, start=1):
        try:
            image = read_image(record.path)
        except UnreadableImage as error:
            defects.append(_defect(record, "unreadable", error.reason, checks))
        else:
            looks.append(_look(record, image))
            if seen is not None:
                seen(record, image)
        if progress is not None:
            progress(number, len(manifest))
    defects += _poor(looks, checks)
    # A spoilt image must not be the one that stays of a set of twins.
    gone = {defect.path for defect in defects if defect.dropped}
    defects += _twins([look for look in looks if str(look.record.path) not in gone], checks)
    order = {str(record.path): number for number, record in enumerate(manifest.records)}
    return tuple(sorted(defects, key=lambda d: (order[d.path], REASONS.index(d.reason))))


def _defect(record: Record, reason: str, detail: str, checks: Checks) -> Defect:
    spared = record.split in checks.keep and reason != "unreadable"
    dropped = reason in checks.drop and not spared
    return Defect(str(record.path), record.split, record.label, reason, detail, dropped)


def _look(record: Record, image: Tensor) -> _Look:
    """Measure an image (3, H, W) as the 8-bit picture that a screen would show."""
    from cleanvision.issue_managers.duplicate_issue_manager import get_hash
    from cleanvision.issue_managers.image_property import (
        calc_entropy,
        calc_percentile_brightness,
    )

    pixels = (image * 255).round().to(torch.uint8)
    grey = torch.equal(pixels[0], pixels[1]) and torch.equal(pixels[0], pixels[2])
    shown = pixels[0] if grey else pixels.permute(1, 2, 0)
    picture = Image.fromarray(shown.numpy())
    low, high = calc_percentile_brightness(picture, percentiles=[5, 99]).tolist()
    scores = {
        "dark": high,
        "light": 1 - low,
        "low_information": min(calc_entropy(picture) / 10, 1.0),
        "blurry": _sharpness(picture),
    }
    digest = f"{picture.size} {get_hash(picture, {'hash_type': 'md5'})}"
    bits = imagehash.phash(picture, hash_size=_HASH_SIDE).hash.ravel()
    return _Look(record, scores, digest, bits)


def _sharpness(picture: Image.Image) -> float:
    """Strength of edges, on cleanvision's scale from 0 to 1.

    cleanvision also counts the outermost pixels, which its filter leaves as they are, and adds a
    term for uniform images. On radiographs each of the two outweighs the edges, so that it takes
    thorough blurring for sharp; both are left out here.
    """
    from cleanvision.issue_managers.image_property import get_edges

    small = picture.convert("L")
    small.thumbnail((_BLUR_SIDE, _BLUR_SIDE), Image.Resampling.BICUBIC, reducing_gap=None)
    edges = np.asarray(get_edges(small))[1:-1, 1:-1]
    return 1 - math.exp(-float(edges.std()) / 100) if edges.size else 0.0


def _poor(looks: Sequence[_Look], checks: Checks) -> Iterator[Defect]:
    """Name the images with a score below its threshold."""
    for look in looks:
        found = [name for name, score in look.scores.items() if score < getattr(checks, name)]
        # An empty, black or white picture has no edges by which to call it blurred as well.
        for name in [name for name in found if name != "blurry"] or found:
            detail = f"score {abs(look.scores[name]):.3f} below {getattr(checks, name):g}"
            yield _defect(look.record, name.replace("_", " "), detail, checks)


def _twins(looks: Sequence[_Look], checks: Checks) -> Iterator[Defect]:
    """Name all but one of each set of duplicates: first exact ones, then near ones of the rest.

    The one that stays is a test image where there is one, so that published test splits stay
    whole and training loses what would leak; otherwise a validation image, otherwise the first by
    path. Where the copies' labels differ, nobody knows which is right, and only a test image stays.
    """
    ordered = sorted(looks, key=lambda k: (_SPLIT_RANK[k.record.split], str(k.record.path)))
    for reason, find in (
        ("exact duplicate", _equal),
        ("near duplicate", functools.partial(_alike, near_bits=checks.near_bits)),
    ):
        found = set()
        for group in find(ordered):
            labels = sorted({look.record.label for look in group})
            stays = 0 if len(labels) > 1 and group[0].record.split != "test" else 1
            for look in group[stays:]:
                twin = (group[0] if look is not group[0] else group[1]).record
                detail = f"of {twin.path.name} ({twin.split})"
                if len(labels) > 1:
                    detail += f", conflicting labels {' and '.join(labels)}"
                found.add(str(look.record.path))
                yield _defect(look.record, reason, detail, checks)
        ordered = [look for look in ordered if str(look.record.path) not in found]


def _equal(looks: Sequence[_Look]) -> list[list[_Look]]:
    """The sets of images with the same pixels."""
    return _groups(looks, [look.digest for look in looks])


def _alike(looks: Sequence[_Look], near_bits: int) -> list[list[_Look]]:
    """The sets of images that are linked by hashes that differ in few bits."""
    if not looks:
        return []
    signs = np.stack([look.bits for look in looks]).astype(np.float32) * 2 - 1
    rows, columns = [], []
    # Products of signs count agreeing bits; blocks keep the matrix of all pairs out of memory.
    block = max(1, 4_000_000 // len(looks))
    for start in range(0, len(looks), block):
        agreement = signs[start : start + block] @ signs.T
        row, column = np.nonzero(agreement >= signs.shape[1] - 2 * near_bits)
        rows.append(row + start)
        columns.append(column)
    pairs = (np.concatenate(rows), np.concatenate(columns))
    graph = coo_array((np.ones(len(pairs[0]), dtype=np.int8), pairs), shape=(len(looks),) * 2)
    _, sets = connected_components(graph, directed=False)
    return _groups(looks, sets.tolist())


def _groups(looks: Sequence[_Look], keys: Sequence[Hashable]) -> list[list[_Look]]:
    """The images that share a key with another, in the same order."""
    groups: dict[Hashable, list[_Look]] = {}
    for look, key in zip(looks, keys, strict=True):
        groups.setdefault(key, []).append(look)
    return [group for group in groups.values() if len(group) > 1]
