"""Curves of a training history."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jernih.assess.figures.style import COLOURS, new_figure, save_figure, tidy
from jernih.validate import InputError


def training_curves(history: pd.DataFrame, name: str) -> Figure:
    """Loss and accuracy of training and validation over the epochs.

    Args:
        history: column ``epoch`` and any of ``train_loss``, ``val_loss``, ``train_accuracy`` and
            ``val_accuracy``; gaps are left out.
        name: what was trained.

    Raises:
        InputError: when there is no epoch or nothing to draw.
    """
    shown = [
        quantity
        for quantity in ("loss", "accuracy")
        if {f"train_{quantity}", f"val_{quantity}"} & set(history.columns)
    ]
    if "epoch" not in history.columns or not shown:
        raise InputError(
            f"history of {name}", "columns epoch and losses or accuracies", list(history.columns)
        )
    epochs = history["epoch"].nunique()
    figure = new_figure(3.6 * len(shown), 2.9, f"Training of {name} ({epochs} epochs)")
    for axes, quantity in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for split, colour, line in (
            ("train", COLOURS["clean"], "-"),
            ("val", COLOURS["attacked"], "--"),
        ):
            column = f"{split}_{quantity}"
            if column in history.columns:
                kept = history[["epoch", column]].dropna()
                axes.plot(
                    kept["epoch"], kept[column], line, color=colour, label=split, linewidth=1.5
                )
        axes.set_xlabel("epoch", fontsize=8)
        axes.set_ylabel(quantity, fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=8, frameon=False)
        tidy(axes)
    return figure


def write_training_curves(histories: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Draw the curves of each history CSV file; PNG files by ``"training-<name>"``.

    Raises:
        InputError: for a history that is absent or has nothing to draw.
    """
    figures = {}
    for name, path in histories.items():
        if not Path(path).is_file():
            raise InputError(f"history of {name}", "an existing CSV file", path)
        try:
            history = pd.read_csv(path)
        except pd.errors.EmptyDataError:
            raise InputError(f"history of {name}", "a CSV file with columns", path) from None
        key = f"training-{name}"
        figures[key] = save_figure(training_curves(history, name), folder / f"{key}.png")
    return figures
