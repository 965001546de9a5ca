"""Images that had better not be learnt from, or tested on: found, named, never touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import imagehash
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from jernih.data.images import UnreadableImage, read_image
from jernih.data.manifest import Manifest, Record
from jernih.validate import check_choice, check_number

REASONS = (
    "unreadable", "exact duplicate", "near duplicate", "blurry", "dark", "light", "low information",
)  # fmt: skip
_SPLIT_RANK = {"test": 0, "val": 1, "train": 2}
_HASH_SIDE = 16


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

    Four scores are cleanvision's, from 0 (bad) to 1 (good); an image below the threshold has the
    defect. The defaults were set so that none of 5,840 paediatric chest radiographs and of 700
    ImageNet photographs falls below, while heavily blurred, nearly black and empty images do.

    Copies that were compressed again, rescaled or brightened a little are found by a perceptual
    hash (pHash) of 256 bits. Such copies of those radiographs differ in at most 14 bits (median 2);
    the two most alike radiographs of different patients differ in 38, so that a bound of 16 gave no
    false alarm. Equality of the usual 64-bit hash missed one copy in eight.

    Attributes:
        blurry: threshold of the strength of edges at 64 pixels across; lowest sound image seen:
            0.20. cleanvision's second term, which lets any image with a uniform background pass
            as sharp, is left out: radiographs have such backgrounds.
        dark: threshold of the brightness that 1 % of pixels exceed; lowest seen: 0.38.
        light: threshold of 1 less the brightness that 5 % of pixels stay below; lowest seen: 0.26.
        low_information: threshold of the entropy of grey levels in tens of bits; lowest: 0.49.
        near_bits: most bits in which the hashes of near duplicates differ, of 256.
        drop: the reasons for which images are left out; the others are only listed.

    Raises:
        InputError: for an unknown reason or a threshold out of range.
    """

    blurry: float = 0.12
    dark: float = 0.25
    light: float = 0.05
    low_information: float = 0.3
    near_bits: int = 16
    drop: Sequence[str] = REASONS

    def __post_init__(self) -> None:
        for name in ("blurry", "dark", "light", "low_information"):
            check_number(f"checks.{name}", getattr(self, name), 0, 1)
        check_number("checks.near_bits", self.near_bits, 0, _HASH_SIDE**2)
        for reason in self.drop:
            check_choice("explore.drop", reason, REASONS)


@dataclass(frozen=True)
class _Look:
    """What is kept of an image once it was looked at: a few hundred bytes."""

    record: Record
    properties: dict[str, Any]
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
    dropped = reason in checks.drop
    return Defect(str(record.path), record.split, record.label, reason, detail, dropped)


def _look(record: Record, image: Tensor) -> _Look:
    """Measure an image (3, H, W) as the 8-bit picture that a screen would show."""
    from cleanvision.issue_managers.duplicate_issue_manager import get_hash
    from cleanvision.issue_managers.image_property import (
        BlurrinessProperty,
        BrightnessProperty,
        EntropyProperty,
    )

    pixels = (image * 255).round().to(torch.uint8)
    grey = torch.equal(pixels[0], pixels[1]) and torch.equal(pixels[0], pixels[2])
    shown = pixels[0] if grey else pixels.permute(1, 2, 0)
    picture = Image.fromarray(shown.numpy())
    properties: dict[str, Any] = {}
    for measure in (BlurrinessProperty(), BrightnessProperty("dark"), EntropyProperty()):
        properties |= measure.calculate(picture)
    digest = f"{picture.size} {get_hash(picture, {'hash_type': 'md5'})}"
    bits = imagehash.phash(picture, hash_size=_HASH_SIDE).hash.ravel()
    return _Look(record, properties, digest, bits)


def _poor(looks: Sequence[_Look], checks: Checks) -> Iterator[Defect]:
    """Name the images with a score below its threshold."""
    from cleanvision.issue_managers.image_property import (
        BlurrinessProperty,
        BrightnessProperty,
        EntropyProperty,
    )

    if not looks:
        return
    table = pd.DataFrame([look.properties for look in looks])
    scores = {}
    for name, measure, options in (
        ("dark", BrightnessProperty("dark"), {}),
        ("light", BrightnessProperty("light"), {}),
        ("low_information", EntropyProperty(), {"normalizing_factor": 0.1}),
        ("blurry", BlurrinessProperty(), {"normalizing_factor": 0.01, "color_threshold": 1.0}),
    ):
        raw = table[measure.score_columns].astype(float)
        scores[name] = measure.get_scores(raw, name, **options)[f"{name}_score"].to_numpy()
    for number, look in enumerate(looks):
        found = [name for name in scores if scores[name][number] < getattr(checks, name)]
        # An empty, black or white picture has no edges by which to call it blurred as well.
        for name in [name for name in found if name != "blurry"] or found:
            detail = f"score {abs(scores[name][number]):.3f} below {getattr(checks, name):g}"
            yield _defect(look.record, name.replace("_", " "), detail, checks)


def _twins(looks: Sequence[_Look], checks: Checks) -> Iterator[Defect]:
    """Name all but one of each set of duplicates.

    The one that stays is a test image where there is one, so that published test splits stay
    whole and training loses what would leak; otherwise a validation image, otherwise the first by
    path. Where the copies' labels differ, nobody knows which is right, and only a test image stays.
    """
    for group in _sets(looks, checks.near_bits):
        group.sort(key=lambda look: (_SPLIT_RANK[look.record.split], str(look.record.path)))
        first = group[0]
        labels = {look.record.label for look in group}
        stays = 0 if len(labels) > 1 and first.record.split != "test" else 1
        for look in group[stays:]:
            twin = first if look is not first else group[1]
            exact = look.digest in {other.digest for other in group if other is not look}
            detail = f"of {twin.record.path.name} ({twin.record.split})"
            if len(labels) > 1:
                detail += f", conflicting labels {' and '.join(sorted(labels))}"
            reason = "exact duplicate" if exact else "near duplicate"
            yield _defect(look.record, reason, detail, checks)


def _sets(looks: Sequence[_Look], near_bits: int) -> list[list[_Look]]:
    """The sets of images that are equal, or linked by hashes that differ in few bits."""
    if not looks:
        return []
    signs = np.stack([look.bits for look in looks]).astype(np.float32) * 2 - 1
    first: dict[str, int] = {}
    rows = [np.arange(len(looks))]
    columns = [np.array([first.setdefault(look.digest, n) for n, look in enumerate(looks)])]
    # Products of signs count agreeing bits; blocks keep the matrix of all pairs out of memory.
    block = max(1, 4_000_000 // len(looks))
    for start in range(0, len(looks), block):
        agreement = signs[start : start + block] @ signs.T
        row, column = np.nonzero(agreement >= signs.shape[1] - 2 * near_bits)
        rows.append(row + start)
        columns.append(column)
    pairs = (np.concatenate(rows), np.concatenate(columns))
    graph = coo_array((np.ones(len(pairs[0]), dtype=np.int8), pairs), shape=(len(looks),) * 2)
    _, names = connected_components(graph, directed=False)
    groups: dict[int, list[_Look]] = {}
    for look, name in zip(looks, names.tolist(), strict=True):
        groups.setdefault(name, []).append(look)
    return [group for group in groups.values() if len(group) > 1]
