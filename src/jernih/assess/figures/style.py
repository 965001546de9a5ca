"""What all figures share: colours that colour-blind readers can tell apart, fonts, saving."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jernih.storage import atomic_path

COLOURS = {
    "clean": "#0072B2",
    "attacked": "#D55E00",
    "restored": "#009E73",
    "oblivious": "#0072B2",
    "adaptive": "#CC79A7",
    "baseline": "#595959",
}
"""From the palette of Okabe and Ito (2008)."""

LINES = {"oblivious": "-", "adaptive": "--"}
MARKERS = {"clean": "s", "attacked": "v", "restored": "o"}

DPI = 120


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of this size in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=9.5, wrap=True)
    return figure


def tidy(axes: Axes) -> None:
    """Take away what carries no information."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, atomically, with the same bytes for the same figure."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})
    return path
