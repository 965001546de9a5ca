"""Figures of the images themselves and of what attack and restoration did to their pixels."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jernih.assess.figures.style import COLOURS, MARKERS, new_figure, tidy
from jernih.assess.observations import CASES, Array, Observations
from jernih.assess.result import Assessment
from jernih.assess.words import format_eps, percent
from jernih.types import Threat
from jernih.validate import InputError

KINDS = ("attacked", "restored")


def observations_of(assessment: Assessment) -> Observations:
    """The values behind an assessment.

    Raises:
        InputError: when it comes from JSON and has none.
    """
    if assessment.observations is None:
        raise InputError("assessment", "one with its observations", "one read from JSON")
    return assessment.observations


def place_of(assessment: Assessment, threat: Threat) -> tuple[int, int]:
    """Where in the observations a threat model's values are: indices of knowledge and bound."""
    knowledge, bound = divmod(assessment.threats.index(threat), len(assessment.plan["epsilons"]))
    return knowledge, bound


def example_rows(assessment: Assessment, threat: Threat) -> list[tuple[str, int, Array]]:
    """Case, position and the clean, attacked and restored image of each example."""
    seen = observations_of(assessment)
    place = place_of(assessment, threat)
    found = [
        (int(case), int(position), images.astype(np.float32))
        for (k, e, case, position), images in zip(
            seen["example_key"], seen["example_images"], strict=True
        )
        if (k, e) == place
    ]
    return [(CASES[case], position, images) for case, position, images in sorted(found, key=_case)]


def _case(example: tuple[int, int, Array]) -> int:
    return example[0]


def draw_examples(assessment: Assessment, threat: Threat, title: str) -> Figure:
    """Rows of clean, attacked and restored images with predictions, and heatmaps of the change.

    The heatmaps show the largest absolute change over the channels; in each column the scale is
    the same for all rows and is told above it.
    """
    seen, place = observations_of(assessment), place_of(assessment, threat)
    rows = example_rows(assessment, threat)
    figure = new_figure(9.2, 0.7 + 2.15 * len(rows), title)
    grid = figure.subplots(len(rows), 5, squeeze=False)
    changes = [
        (np.abs(images[1] - images[0]).max(0), np.abs(images[2] - images[0]).max(0))
        for _, _, images in rows
    ]
    scales = [max(float(pair[i].max()) for pair in changes) or 1.0 for i in (0, 1)]
    for axes, (case, position, images), pair in zip(grid, rows, changes, strict=True):
        label = int(seen["label"][position])
        answers = (
            (seen["clean_pred"][position], seen["clean_conf"][position]),
            (seen["attacked_pred"][place][position], seen["attacked_conf"][place][position]),
            (seen["restored_pred"][place][position], seen["restored_conf"][place][position]),
        )
        for panel, image, kind, (predicted, confidence) in zip(
            axes[:3], images, ("clean", *KINDS), answers, strict=True
        ):
            panel.imshow(np.clip(image.transpose(1, 2, 0), 0, 1), interpolation="nearest")
            right = int(predicted) == label
            name, mark = _short(assessment.classes[int(predicted)]), "✓" if right else "✗"
            panel.set_title(
                f"{kind}: {name} {mark}\n{percent(confidence)} sure",
                fontsize=7.5,
                color="black" if right else COLOURS["attacked"],
            )
        for panel, change, scale, told in zip(
            axes[3:], pair, scales, ("attack", "what remains"), strict=True
        ):
            panel.imshow(change, cmap="magma", vmin=0, vmax=scale, interpolation="nearest")
            panel.set_title(f"{told}: |change|\n0 to {scale:.3f}", fontsize=7.5)
        axes[0].set_ylabel(f"{case}\n(true: {_short(assessment.classes[label])})", fontsize=6.5)
        for panel in axes:
            panel.set_xticks([])
            panel.set_yticks([])
    return figure


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def perturbation_histogram(assessment: Assessment, threat: Threat, title: str) -> Figure:
    """How large the changes of single pixel values are."""
    histogram = assessment.condition("attacked", threat).perturbation
    figure = new_figure(4.4, 3.1, title)
    axes = figure.subplots()
    if histogram is not None:
        counts = np.array(histogram.counts)
        edges = np.linspace(histogram.low, histogram.high, len(counts) + 1)
        axes.stairs(counts / counts.sum(), edges, fill=True, color=COLOURS["attacked"])
    marks = np.linspace(-threat.eps, threat.eps, 5)
    labels = [f"−{format_eps(-m)}" if m < 0 else format_eps(m) if m else "0" for m in marks]
    axes.set_xticks(marks, labels)
    axes.set_xlabel("change of a pixel value, images in [0, 1]", fontsize=8)
    axes.set_ylabel("share of pixel values", fontsize=8)
    tidy(axes)
    return figure


def mse_per_image(assessment: Assessment, threat: Threat, title: str) -> Figure:
    """Mean squared error of every image against its original, with the mean as a line."""
    seen, place = observations_of(assessment), place_of(assessment, threat)
    figure = new_figure(4.4, 3.1, title)
    axes = figure.subplots()
    for kind in KINDS:
        values = seen[f"{kind}_mse"][place]
        axes.plot(values, MARKERS[kind], color=COLOURS[kind], markersize=2.6, alpha=0.7, label=kind)
        axes.axhline(
            values.mean(), color=COLOURS[kind], linewidth=1.2, label=f"mean {values.mean():.2g}"
        )
    axes.set_xlabel("image", fontsize=8)
    axes.set_ylabel("mean squared error", fontsize=8)
    axes.set_ylim(bottom=0)
    _finish(axes)
    return figure


def psnr_histogram(assessment: Assessment, threat: Threat, title: str) -> Figure:
    """How the peak signal-to-noise ratios of attacked and restored images are spread."""
    seen, place = observations_of(assessment), place_of(assessment, threat)
    values = {kind: seen[f"{kind}_psnr"][place] for kind in KINDS}
    values = {kind: found[np.isfinite(found)] for kind, found in values.items()}
    figure = new_figure(4.4, 3.1, title)
    axes = figure.subplots()
    everything = np.concatenate(list(values.values()))
    if len(everything):
        edges = np.linspace(everything.min() - 0.5, everything.max() + 0.5, 31)
        for kind, hatch in zip(KINDS, ("", "///"), strict=True):
            found = values[kind]
            mean = f"{found.mean():.1f} dB" if len(found) else "none finite"
            axes.hist(
                found,
                edges.tolist(),
                color=COLOURS[kind],
                alpha=0.65,
                hatch=hatch,
                label=f"{kind}, mean {mean}",
            )
    axes.set_xlabel("PSNR against the clean original, dB", fontsize=8)
    axes.set_ylabel("images", fontsize=8)
    _finish(axes)
    return figure


def _finish(axes: Axes) -> None:
    tidy(axes)
    axes.legend(fontsize=7, framealpha=0.8)
