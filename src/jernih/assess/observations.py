"""What is measured on each image, and how it is kept on disk while an assessment runs."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jernih.storage import atomic_path

Array = NDArray[Any]

CASES = (
    "first image",
    "attack succeeded, restored",
    "attack succeeded, not restored",
    "attack failed, still correct",
    "attack failed, wrong after restoration",
)
"""Why an example is shown. All but the first are among images classified correctly when clean."""

IMAGE_FIELDS = (
    "label", "clean_pred", "clean_conf", "clean_prob1", "clean_softmax",
    "purified_pred", "purified_conf", "purified_prob1",
    "purified_mse", "purified_psnr", "purified_ssim", "clean_score",
)  # fmt: skip
"""Values of each image, shape (n,)."""

ATTACK_FIELDS = (
    "attacked_pred", "attacked_conf", "attacked_prob1", "attacked_pred_8bit",
    "attacked_mse", "attacked_psnr", "attacked_ssim", "linf", "l2", "attacked_score",
    "restored_pred", "restored_conf", "restored_prob1",
    "restored_mse", "restored_psnr", "restored_ssim",
)  # fmt: skip
"""Values of each image under each threat, shape (knowledge, bound, n)."""

EXTRA_FIELDS = ("histogram", "example_key", "example_images", "probe")
"""Counts over all pixels (knowledge, bound, bins); a few examples: their (knowledge, bound, case,
position) and their clean, attacked and restored images, (examples, 3, C, H, W) float16; and what
the first batch told of each model, (models, 6), as :mod:`jernih.assess.probe` lays it out."""

FIELDS = (*IMAGE_FIELDS, *ATTACK_FIELDS, *EXTRA_FIELDS)


class Observations:
    """The values of all images of an assessment.

    Args:
        paths: name of each image.
        values: an array for each name in :data:`FIELDS`.
    """

    def __init__(self, paths: Sequence[str], values: Mapping[str, Array]) -> None:
        self.paths = tuple(paths)
        self.values = dict(values)

    def __getitem__(self, name: str) -> Array:
        return self.values[name]

    def __len__(self) -> int:
        return len(self.paths)

    @classmethod
    def join(cls, paths: Sequence[str], parts: Iterable[Mapping[str, Array]]) -> Observations:
        """Put the batches back together, in order, holding one at a time."""
        joined: dict[str, Array] = {}
        few: dict[str, list[Array]] = {"example_key": [], "example_images": [], "probe": []}
        place = 0
        for part in parts:
            count = part["label"].shape[-1]
            for name in (*IMAGE_FIELDS, *ATTACK_FIELDS):
                values = part[name]
                if name not in joined:
                    joined[name] = np.empty((*values.shape[:-1], len(paths)), values.dtype)
                joined[name][..., place : place + count] = values
            if place:
                joined["histogram"] += part["histogram"]
            else:
                joined["histogram"] = part["histogram"].copy()
            for name, held in few.items():
                if len(part[name]) or not held:
                    held.append(part[name])
            place += count
        joined |= {name: np.concatenate(held, axis=0) for name, held in few.items()}
        # Batches that several processes measured may each have an example of a kind.
        _, first = np.unique(joined["example_key"][:, :3], axis=0, return_index=True)
        for name in ("example_key", "example_images"):
            joined[name] = joined[name][np.sort(first)]
        return cls(paths, joined)


def save_part(path: Path, key: str, values: Mapping[str, Array]) -> None:
    """Write one batch's values, atomically, under a key that says what they belong to."""
    with atomic_path(path) as temporary:
        arrays: dict[str, Any] = {"key": np.array(key), **values}
        np.savez(temporary, **arrays)


def load_part(path: Path, key: str, names: Sequence[str] = FIELDS) -> dict[str, Array] | None:
    """Read one batch's values; None when they are absent, damaged or under another key."""
    try:
        # numpy leaves a file that it opened itself open when it is not a whole archive.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            return {name: stored[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
