"""Accuracy over many bounds."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from jernih.assess.figures.style import COLOURS, LINES, new_figure, tidy
from jernih.assess.survey_result import BARE, Survey
from jernih.assess.words import format_eps, format_norm


def draw_sweep(survey: Survey, title: str) -> Figure:
    """Accuracy with its interval and balanced accuracy over the bounds, one panel an attacker.

    Args:
        survey: one with several bounds; its first two purifiers are drawn.
        title: the figure's title.
    """
    kinds = list(dict.fromkeys(threat.knowledge for threat in survey.threats))
    figure = new_figure(4.6 * len(kinds), 3.9, title)
    names = list(dict.fromkeys(row.purifier for row in survey.rows))[:2]
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        bounds = [threat.eps for threat in survey.threats if threat.knowledge == kind]
        for name in names:
            rows = [
                row
                for row in survey.rows
                if row.purifier == name and row.threat and row.threat.knowledge == kind
            ]
            if not rows:
                continue
            colour = COLOURS["attacked" if name == BARE else "restored"]
            told = "classifier" if name == BARE else "defended"
            values = [row.accuracy.value for row in rows]
            errors = [
                [max(0.0, row.accuracy.value - row.accuracy.low) for row in rows],
                [max(0.0, row.accuracy.high - row.accuracy.value) for row in rows],
            ]
            axes.errorbar(
                bounds, values, yerr=errors, color=colour, linestyle=LINES["oblivious"],
                marker="o", markersize=3.5, capsize=2, linewidth=1.4, label=f"{told}, accuracy",
            )  # fmt: skip
            if rows[0].recall:
                balanced = [row.balanced_accuracy for row in rows]
                axes.plot(
                    bounds, balanced, color=colour, linestyle=LINES["adaptive"], linewidth=1.2,
                    label=f"{told}, balanced accuracy",
                )  # fmt: skip
        axes.axhline(
            survey.majority.value,
            color=COLOURS["baseline"],
            linestyle=":",
            label=f"always “{survey.majority_class}”",
        )
        axes.set_xscale("log")
        axes.set_xticks(bounds, [format_eps(eps) for eps in bounds], rotation=60, fontsize=7)
        axes.minorticks_off()
        norm = format_norm(survey.threats[0].norm)
        axes.set_xlabel(f"bound on the perturbation ({norm}), {kind} attacker", fontsize=8)
        axes.set_ylabel("accuracy", fontsize=8)
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.legend(fontsize=7, framealpha=0.8)
        tidy(axes)
    return figure
