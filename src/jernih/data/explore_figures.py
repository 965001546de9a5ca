"""The figures of Explore."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jernih.data.defects import Defect
from jernih.data.images import UnreadableImage, read_image
from jernih.data.manifest import Record
from jernih.data.modify import Prepare
from jernih.storage import atomic_path

FEW_CLASSES = 12
"""With more classes than this, figures and statistics are not drawn up by class."""

_COLUMNS = 8


def balance_figure(counts: Mapping[str, Mapping[str, int]], path: Path) -> Path:
    """Bars of the images by class and split; classes beyond twelve are summed up."""
    labels = sorted({label for split in counts.values() for label in split})
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis = figure.subplots()
    splits = [name for name, classes in counts.items() if classes]
    if len(labels) > FEW_CLASSES:
        axis.bar(splits, [sum(counts[name].values()) for name in splits], color="#0072B2")
        axis.set_title(f"Images by split ({len(labels)} classes)")
    else:
        place = np.arange(len(splits))
        width = 0.8 / max(len(labels), 1)
        for number, label in enumerate(labels):
            heights = [counts[name].get(label, 0) for name in splits]
            bars = axis.bar(place + width * (number - (len(labels) - 1) / 2), heights, width,
                            label=label)  # fmt: skip
            axis.bar_label(bars, fontsize=8)
        axis.set_xticks(place, splits)
        axis.legend(fontsize=8)
        axis.set_title("Images by split and class")
    axis.set_ylabel("images")
    return _save(figure, path)


def histogram_figure(histograms: Mapping[str, Sequence[float]], path: Path) -> Path:
    """Lines of the share of pixels at each intensity: of all images, and by class or channel."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis = figure.subplots()
    by_class = any(name.startswith("class ") for name in histograms)
    for name, shares in histograms.items():
        if by_class and name.startswith("channel "):
            continue
        centres = (np.arange(len(shares)) + 0.5) / len(shares)
        axis.plot(centres, shares, label=name, linewidth=2 if name == "all" else 1.2)
    axis.set(xlabel="intensity", ylabel="share of pixels", title="Pixel intensities")
    if histograms:
        axis.legend(fontsize=8)
    return _save(figure, path)


def samples_figure(records: Sequence[Record], path: Path) -> Path:
    """A grid of images with their classes."""
    return _grid([(record.path, record.label) for record in records], path, "Samples")


def defects_figure(defects: Sequence[Defect], path: Path) -> Path:
    """A grid of defective images with their defects: a few of each kind."""
    met: Counter[str] = Counter()
    ranked = []
    for defect in defects:
        ranked.append((met[defect.reason], defect))
        met[defect.reason] += 1
    ranked.sort(key=lambda pair: pair[0])
    shown = sorted((defect for _, defect in ranked[: 3 * _COLUMNS]), key=lambda d: d.reason)
    chosen = [(Path(defect.path), defect.reason) for defect in shown]
    return _grid(chosen, path, f"Defects ({len(chosen)} of {len(defects)})")


def _grid(pictures: Sequence[tuple[Path, str]], path: Path, title: str) -> Path:
    rows = max(1, -(-len(pictures) // _COLUMNS))
    figure = Figure(figsize=(1.5 * _COLUMNS, 1.75 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False)
    prepare = Prepare(128, "pad")
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (file, text) in zip(axes.flat, pictures, strict=False):
        axis.set_title(text, fontsize=8)
        try:
            picture: Any = prepare(read_image(file)).permute(1, 2, 0).numpy()
        except UnreadableImage:
            axis.text(0.5, 0.5, "cannot be read", ha="center", va="center", fontsize=8)
        else:
            axis.imshow(picture, vmin=0, vmax=1)
    figure.suptitle(title, fontsize=10)
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> Path:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})
    return path
