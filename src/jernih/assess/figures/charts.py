"""Figures over all images: accuracy, detection and confusion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from jernih.assess.figures.style import COLOURS, LINES, MARKERS, new_figure, tidy
from jernih.assess.result import Assessment, Condition
from jernih.assess.words import format_eps, format_norm, format_threat
from jernih.types import Threat

MOST_CLASSES = 12
"""With more classes than this a confusion matrix cannot be read."""


def accuracy_against_bound(assessment: Assessment, title: str) -> Figure:
    """Accuracy over the bound, with intervals, for both kinds of attacker and the baseline."""
    threats = assessment.threats
    bounds = sorted({threat.eps for threat in threats})
    clean = assessment.condition("clean").accuracy
    purified = assessment.condition("clean through purifier").accuracy
    figure = new_figure(7.2, 4.4, title)
    axes = figure.subplots()
    kinds = list(dict.fromkeys(threat.knowledge for threat in threats))
    series = [(which, kind) for which in ("attacked", "restored") for kind in kinds]
    for number, (which, kind) in enumerate(series):
        own = sorted((t for t in threats if t.knowledge == kind), key=lambda t: t.eps)
        rates = [clean if which == "attacked" else purified]
        rates += [
            assessment.condition("attacked" if which == "attacked" else "restored", t).accuracy
            for t in own
        ]
        values = np.array([rate.value for rate in rates])
        errors = [
            values - np.array([rate.low for rate in rates]),
            np.array([rate.high for rate in rates]) - values,
        ]
        shift = (number - (len(series) - 1) / 2) * 0.07
        axes.errorbar(
            np.arange(len(rates)) + shift,
            values,
            yerr=np.maximum(errors, 0),
            color=COLOURS[which],
            linestyle=LINES[kind],
            marker=MARKERS[which],
            markerfacecolor="white" if kind == "adaptive" else COLOURS[which],
            markersize=5,
            linewidth=1.5,
            elinewidth=1,
            capsize=2.5,
            label=f"{which}, {kind} attacker",
        )
    axes.axhline(
        assessment.majority.value,
        color=COLOURS["baseline"],
        linestyle=":",
        label=f"always “{assessment.majority_class}”",
    )
    axes.set_xticks(range(len(bounds) + 1), ["no attack", *map(format_eps, bounds)])
    axes.set_xlabel(f"bound on the perturbation ({format_norm(threats[0].norm)})", fontsize=8)
    axes.set_ylabel("accuracy", fontsize=8)
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    tidy(axes)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def detection_roc(assessment: Assessment, title: str) -> Figure:
    """ROC curves of the detector, one panel for each kind of attacker."""
    results = assessment.detection.results if assessment.detection else ()
    kinds = list(dict.fromkeys(result.threat.knowledge for result in results))
    figure = new_figure(3.6 * len(kinds), 3.9, title)
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        own = [result for result in results if result.threat.knowledge == kind]
        for number, result in enumerate(own):
            shade = 0.25 + 0.7 * (number + 1) / len(own)
            bound = f"{format_norm(result.threat.norm)} ≤ {format_eps(result.threat.eps)}"
            axes.plot(
                result.roc.fpr,
                result.roc.tpr,
                color=COLOURS[kind],
                alpha=shade,
                linewidth=0.9 + shade,
                label=f"{bound}, AUROC {result.auroc.value or 0:.2f}",
            )
        axes.plot([0, 1], [0, 1], color=COLOURS["baseline"], linestyle=":", linewidth=1)
        if assessment.detection and assessment.detection.fpr:
            axes.axvline(
                assessment.detection.fpr.value,
                color=COLOURS["baseline"],
                linewidth=1,
                label="measured false positives",
            )
        axes.set_title(f"{kind} attacker", fontsize=9)
        axes.set_xlabel("clean images flagged", fontsize=8)
        axes.set_ylabel("attacked images flagged", fontsize=8)
        axes.set_aspect("equal")
        axes.legend(fontsize=7, loc="lower right")
        tidy(axes)
    return figure


def shown_classes(assessment: Assessment, threat: Threat) -> list[str]:
    """The classes that occur among labels or predictions, in label order."""
    met = {
        name
        for condition in _panels(assessment, threat)
        for cell in condition.confusion
        for name in (cell.true, cell.predicted)
    }
    return [name for name in assessment.classes if name in met]


def confusion_matrices(assessment: Assessment, threat: Threat, title: str) -> Figure:
    """Confusion matrices of clean, attacked and restored images side by side."""
    names = shown_classes(assessment, threat)
    panels = _panels(assessment, threat)
    side = 1.7 + 0.32 * len(names)
    figure = new_figure(side * len(panels), side + 0.9, title)
    for axes, condition in zip(figure.subplots(1, len(panels)), panels, strict=True):
        counts = _matrix(condition, names)
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if share[row, column] > 0.6 else "black"
            axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
        axes.set_title(f"{condition.which}\n{format_threat(condition.threat, condition.attack)}")
        axes.title.set_fontsize(8.5)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set_xlabel("predicted", fontsize=8)
    figure.axes[0].set_ylabel("true", fontsize=8)
    return figure


def _panels(assessment: Assessment, threat: Threat) -> Sequence[Condition]:
    return (
        assessment.condition("clean"),
        assessment.condition("attacked", threat),
        assessment.condition("restored", threat),
    )


def _matrix(
    condition: Condition, names: Sequence[str]
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    place = {name: index for index, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for cell in condition.confusion:
        counts[place[cell.true], place[cell.predicted]] = cell.count
    return counts
