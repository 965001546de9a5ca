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


def compared_curves(histories: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Validation loss and accuracy of several trainings in the same panels.

    Args:
        histories: as for :func:`training_curves`, by what was trained.
        title: the figure's title.
    """
    figure = new_figure(8.4, 3.3, title)
    panels = figure.subplots(1, 3)
    columns = (("train_loss", "training loss"), ("val_loss", "validation loss"),
               ("val_accuracy", "accuracy on restored validation images"))  # fmt: skip
    for axes, (column, told) in zip(panels, columns, strict=True):
        for number, (name, history) in enumerate(histories.items()):
            if column in history.columns:
                kept = history[["epoch", column]].dropna()
                axes.plot(
                    kept["epoch"], kept[column], ("-", "--", ":", "-.")[number % 4],
                    color=f"C{number}", linewidth=1.5, label=name,
                )  # fmt: skip
        axes.set_xlabel("epoch", fontsize=8)
        axes.set_ylabel(told, fontsize=8)
        if "loss" in column:
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        tidy(axes)
    handles, labels = panels[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def write_training_curves(histories: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Draw the curves of each history CSV file; PNG files by ``"training-<name>"``.

    With several purifiers there is a figure ``"training-purifiers"`` that compares them.

    Raises:
        InputError: for a history that is absent or has nothing to draw.
    """
    figures = {}
    read: dict[str, pd.DataFrame] = {}
    for name, path in histories.items():
        if not Path(path).is_file():
            raise InputError(f"history of {name}", "an existing CSV file", path)
        try:
            history = pd.read_csv(path)
        except pd.errors.EmptyDataError:
            raise InputError(f"history of {name}", "a CSV file with columns", path) from None
        read[name] = history
        key = f"training-{name}"
        figures[key] = save_figure(training_curves(history, name), folder / f"{key}.png")
    purifiers = {name: history for name, history in read.items() if name.startswith("purifier")}
    if len(purifiers) > 1:
        drawn = compared_curves(purifiers, "Trainings of the purifiers, side by side")
        key = "training-purifiers"
        figures[key] = save_figure(drawn, folder / f"{key}.png")
    return figures
