"""Images under heatmaps of the areas that mattered to the classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from jernih.assess.figures.style import COLOURS, new_figure
from jernih.assess.observations import Array
from jernih.assess.words import percent
from jernih.validate import InputError

KINDS = ("clean", "attacked", "restored")

OPACITY = 0.65
"""Of the heatmap where it is highest; where it is 0 the image shows unchanged."""

Answer = tuple[str, float, bool]
"""The predicted class, its confidence, and whether it is right."""


@dataclass(frozen=True, eq=False)
class SaliencyRow:
    """One example: an image clean, attacked and restored.

    Attributes:
        case: why it is shown.
        true: its class.
        images: the three images, (3, 3, H, W) in [0, 1].
        maps: what mattered in each, (3, H, W) in [0, 1].
        answers: the predicted class of each, its confidence, and whether it is right.
    """

    case: str
    true: str
    images: Array
    maps: Array
    answers: tuple[Answer, ...]


def draw_important_areas(rows: Sequence[SaliencyRow], title: str) -> Figure:
    """Rows of clean, attacked and restored images with what mattered in them, and predictions.

    Raises:
        InputError: when there are no rows, or a row has other than three of everything.
    """
    if not rows:
        raise InputError("rows", "at least one", "none")
    figure = new_figure(6.4, 0.7 + 2.3 * len(rows), title)
    grid = figure.subplots(len(rows), 3, squeeze=False)
    for axes, row in zip(grid, rows, strict=True):
        counts = len(row.images), len(row.maps), len(row.answers)
        if counts != (3, 3, 3):
            raise InputError(f"row {row.case!r}", "three images, maps and answers", counts)
        for panel, image, heat, kind, (predicted, confidence, right) in zip(
            axes, row.images, row.maps, KINDS, row.answers, strict=True
        ):
            panel.imshow(np.clip(image.transpose(1, 2, 0), 0, 1), interpolation="nearest")
            panel.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=OPACITY * np.clip(heat, 0, 1))
            panel.set_title(
                f"{kind}: {_short(predicted)} {'✓' if right else '✗'}\n{percent(confidence)} sure",
                fontsize=7.5,
                color="black" if right else COLOURS["attacked"],
            )
            panel.set_xticks([])
            panel.set_yticks([])
        axes[0].set_ylabel(f"{row.case}\n(true: {_short(row.true)})", fontsize=6.5)
    return figure


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
