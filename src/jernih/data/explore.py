"""Explore: what the images are like, and the defects among them."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jernih.data.defects import Checks, Defect, find_defects
from jernih.data.explore_figures import (
    FEW_CLASSES,
    balance_figure,
    defects_figure,
    histogram_figure,
    samples_figure,
)
from jernih.data.images import describe_image
from jernih.data.manifest import SPLITS, Manifest, Record
from jernih.storage import read_json, write_json, write_text
from jernih.validate import InputError

__all__ = ["Checks", "Defect", "Exploration", "class_weights", "explore"]

Counts = NDArray[np.int64]

_LEVELS, _BINS = 1024, 64
_CHANNELS = ("red", "green", "blue")


@dataclass(frozen=True)
class Exploration:
    """What Explore found.

    Attributes:
        balance: images by split and class, with those that are left out.
        statistics: sizes, colour modes, and intensities in [0, 1].
        defects: what is wrong with which image.
        figures: figures by name; paths relative to the stage's folder.
    """

    balance: dict[str, dict[str, int]]
    statistics: dict[str, Any]
    defects: tuple[Defect, ...]
    figures: dict[str, str]

    def clean(self, manifest: Manifest) -> Manifest:
        """Return the manifest without the images that are left out.

        Raises:
            InputError: when that empties a split, or a class of a split. With more than twelve
                classes, some of a handful of images each, the latter is let pass.
        """
        dropped = {defect.path for defect in self.defects if defect.dropped}
        kept = manifest.keep(lambda record: str(record.path) not in dropped)
        before, after = manifest.counts(), kept.counts()
        for split in SPLITS:
            if before[split] and not after[split]:
                raise InputError(f"{split} split", "images without defects", "none")
            lost = sorted(set(before[split]) - set(after[split]))
            if lost and len(before[split]) <= FEW_CLASSES:
                raise InputError(f"class {lost[0]!r}", f"{split} images without defects", "none")
        return kept

    def imbalance(self) -> float:
        """How many times larger the largest training class is than the smallest present."""
        counts = self.balance["train"].values()
        return max(counts) / min(counts) if counts else 1.0

    def save(self, folder: Path) -> None:
        """Write ``explore.json`` and ``defects.csv``."""
        write_json(folder / "explore.json", dataclasses.asdict(self))
        text = io.StringIO()
        names = [field.name for field in dataclasses.fields(Defect)]
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(defect) for defect in self.defects)
        write_text(folder / "defects.csv", text.getvalue())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: when ``explore.json`` is absent or is not JSON.
        """
        saved = read_json(folder / "explore.json")
        defects = tuple(Defect(**defect) for defect in saved["defects"])
        return cls(saved["balance"], saved["statistics"], defects, saved["figures"])


def explore(
    manifest: Manifest,
    folder: Path,
    *,
    checks: Checks | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Exploration:
    """Look at every image once; write statistics, defects and figures to a folder.

    The image files are only read, each once. What is kept of an image is its measurements and a
    hash of 256 bits, never its pixels.

    Args:
        manifest: the images.
        folder: receives ``explore.json``, ``defects.csv`` and ``figures/``.
        checks: what counts as a defect, and which defects lead to leaving out.
        progress: called with the number of images read and in all.

    Raises:
        OSError: when the folder cannot be written.
    """
    few = len({record.label for record in manifest.records}) <= FEW_CLASSES
    statistics = _Statistics(by_class=few)
    defects = find_defects(manifest, checks or Checks(), seen=statistics.add, progress=progress)
    bad = {defect.path for defect in defects}
    good = manifest.keep(lambda record: str(record.path) not in bad)
    summary = statistics.summary()
    figures = {
        "class balance": balance_figure(manifest.counts(), folder / "figures/balance.png"),
        "intensities": histogram_figure(summary["histograms"], folder / "figures/intensity.png"),
        "samples": samples_figure(_samples(good), folder / "figures/samples.png"),
    }
    if defects:
        figures["defects"] = defects_figure(defects, folder / "figures/defects.png")
    names = {name: str(path.relative_to(folder)) for name, path in figures.items()}
    exploration = Exploration(manifest.counts(), summary, defects, names)
    exploration.save(folder)
    return exploration


def class_weights(manifest: Manifest) -> Tensor:
    """Weights of the classes, inversely proportional to their number of training images.

    Returns:
        float32 (K,): mean 1 over the classes present, 0 for absent ones.

    Raises:
        InputError: when the training split is empty.
    """
    labels = manifest.split("train").labels()
    if not len(labels):
        raise InputError("train split", "at least one image", "none")
    counts = torch.bincount(labels, minlength=len(manifest.classes)).float()
    weights = torch.where(counts > 0, 1 / counts.clamp_min(1), 0)
    return weights / weights[counts > 0].mean()


class _Statistics:
    """Sizes and intensities, gathered image by image in constant memory."""

    def __init__(self, *, by_class: bool) -> None:
        self.by_class = by_class
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.modes: Counter[str] = Counter()
        self.histograms: dict[str, Counts] = {}
        self.extremes: dict[str, tuple[float, float]] = {}

    def add(self, record: Record, image: Tensor) -> None:
        facts = describe_image(record.path)
        self.sizes[facts.width, facts.height] += 1
        self.modes[facts.mode] += 1
        # A fine histogram keeps quantiles and moments to 1/1024 in little memory.
        level = (image.reshape(3, -1) * _LEVELS).long().clamp_max(_LEVELS - 1)
        level += torch.arange(3)[:, None] * _LEVELS
        channels = np.bincount(level.flatten().numpy(), minlength=3 * _LEVELS).reshape(3, _LEVELS)
        low, high = image.amin((1, 2)).tolist(), image.amax((1, 2)).tolist()
        for name, counts, least, most in zip(_CHANNELS, channels, low, high, strict=True):
            self._gather(f"channel {name}", counts, least, most)
        self._gather("all", channels.sum(0), min(low), max(high))
        if self.by_class:
            self._gather(f"class {record.label}", channels.sum(0), min(low), max(high))

    def _gather(self, key: str, counts: Counts, low: float, high: float) -> None:
        least, most = self.extremes.get(key, (1.0, 0.0))
        self.extremes[key] = min(least, low), max(most, high)
        self.histograms[key] = self.histograms.get(key, np.zeros(_LEVELS, np.int64)) + counts

    def summary(self) -> dict[str, Any]:
        widths, heights = ([s[axis] for s in self.sizes.elements()] for axis in (0, 1))
        return {
            "images": self.sizes.total(),
            "width": _spread(widths),
            "height": _spread(heights),
            "modes": dict(sorted(self.modes.items())),
            "intensity": {
                key: _moments(counts) | dict(zip(("min", "max"), self.extremes[key], strict=True))
                for key, counts in sorted(self.histograms.items())
            },
            "histograms": {
                key: (counts.reshape(_BINS, -1).sum(1) / counts.sum()).tolist()
                for key, counts in sorted(self.histograms.items())
            },
        }


def _spread(values: Sequence[int]) -> dict[str, float]:
    if not values:
        return {}
    return {"min": min(values), "median": float(np.median(values)), "max": max(values)}


def _moments(counts: Counts) -> dict[str, float]:
    """Mean, standard deviation and quantiles of pixel values from their histogram."""
    centres = (np.arange(len(counts)) + 0.5) / len(counts)
    share = counts / counts.sum()
    mean = float((share * centres).sum())
    quantiles = {
        f"p{q}": float(centres[np.searchsorted(share.cumsum(), q / 100)])
        for q in (1, 25, 50, 75, 99)
    }
    return {"mean": mean, "std": float(np.sqrt((share * (centres - mean) ** 2).sum())), **quantiles}


def _samples(manifest: Manifest, each: int = 8, many: int = 24) -> Sequence[Record]:
    """Up to 8 images of each class, or one of 24 classes where there are many classes."""
    by_class: dict[str, list[Record]] = {}
    for record in manifest.records:
        by_class.setdefault(record.label, []).append(record)
    labels = sorted(by_class)
    if len(labels) > FEW_CLASSES:
        chosen = np.linspace(0, len(labels) - 1, many).round().astype(int)
        return [by_class[labels[number]][0] for number in sorted(set(chosen.tolist()))]
    return [
        by_class[label][number]
        for label in labels
        for number in sorted(
            set(np.linspace(0, len(by_class[label]) - 1, each).round().astype(int).tolist())
        )
    ]
