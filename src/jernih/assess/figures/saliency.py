"""Images with the areas that mattered to the classifier laid over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from jernih.assess.figures.style import COLOURS, new_figure
from jernih.assess.observations import Array
from jernih.assess.words import percent

Answer = tuple[str, float, bool]
"""The predicted class, its confidence, and whether it is right."""


@dataclass(frozen=True)
class SaliencyRow:
    """One image, clean, attacked and restored.

    Attributes:
        case: why it is shown.
        true: its class.
        images: the three images (3, 3, H, W) in [0, 1].
        maps: what mattered in each (3, H, W) in [0, 1].
        answers: what the classifier said of each.
    """

    case: str
    true: str
    images: Array
    maps: Array
    answers: tuple[Answer, ...]


def draw_important_areas(rows: Sequence[SaliencyRow], title: str) -> Figure:
    """Rows of clean, attacked and restored images under heatmaps of what mattered."""
    figure = new_figure(6.6, 0.7 + 2.3 * len(rows), title)
    grid = figure.subplots(len(rows), 3, squeeze=False)
    for axes, row in zip(grid, rows, strict=True):
        for panel, image, heat, kind, (name, confidence, right) in zip(
            axes,
            row.images,
            row.maps,
            ("clean", "attacked", "restored"),
            row.answers,
            strict=True,
        ):
            grey = np.clip(image, 0, 1).mean(0)
            panel.imshow(grey, cmap="gray", vmin=0, vmax=1)
            panel.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.15 + 0.5 * heat)
            panel.set_title(
                f"{kind}: {name[:18]} {'✓' if right else '✗'}\n{percent(confidence)} sure",
                fontsize=7.5,
                color="black" if right else COLOURS["attacked"],
            )
            panel.set_xticks([])
            panel.set_yticks([])
        axes[0].set_ylabel(f"{row.case}\n(true: {row.true[:18]})", fontsize=6.5)
    return figure
