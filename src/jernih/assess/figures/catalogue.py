"""Which figures an assessment has, what they show in words, and how to draw them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from jernih.assess.figures.charts import (
    MOST_CLASSES,
    accuracy_against_bound,
    confusion_matrices,
    detection_roc,
    shown_classes,
)
from jernih.assess.figures.pixels import (
    draw_examples,
    mse_per_image,
    perturbation_histogram,
    psnr_histogram,
)
from jernih.assess.figures.style import save_figure
from jernih.assess.result import Assessment
from jernih.assess.words import (
    format_eps,
    format_interval,
    format_number,
    format_rate,
    format_threat,
)
from jernih.types import Threat


@dataclass(frozen=True)
class Plot:
    """A figure that an assessment can have.

    Attributes:
        key: its name, which is also its file's.
        title: what it shows, with the threat model and the number of images.
        alt: the same for those who cannot see it, with the numbers that matter.
        threat: the threat model that it belongs to; None for a figure over all of them.
        draw: draws it under the title.
        from_json: whether the JSON is enough to draw it.
        wide: whether it needs the whole width of a page.
    """

    key: str
    title: str
    alt: str
    threat: Threat | None
    draw: Callable[[str], Figure]
    from_json: bool = True
    wide: bool = False


def threat_key(threat: Threat) -> str:
    """A threat model as part of a file's name, such as ``"oblivious-8_255"``."""
    return f"{threat.knowledge}-{format_eps(threat.eps).replace('/', '_')}"


def catalogue(assessment: Assessment) -> tuple[Plot, ...]:
    """All figures that the assessment can have, in reading order."""
    plots = list(_overall(assessment))
    for threat in assessment.threats:
        plots += _under(assessment, threat)
    return tuple(plots)


def write_figures(assessment: Assessment, folder: Path) -> dict[str, Path]:
    """Draw all figures and return their PNG files by key.

    An assessment that was read from JSON has only the figures that need nothing else.
    """
    return {
        plot.key: save_figure(plot.draw(plot.title), folder / f"{plot.key}.png")
        for plot in catalogue(assessment)
        if plot.from_json or assessment.observations is not None
    }


def _overall(a: Assessment) -> Iterator[Plot]:
    told = "; ".join(
        f"{format_threat(t, a.attack)}: attacked "
        f"{format_rate(a.condition('attacked', t).accuracy)}, restored "
        f"{format_rate(a.condition('restored', t).accuracy)}"
        for t in a.threats
    )
    yield Plot(
        "accuracy",
        f"Accuracy against the bound ({a.attack}, n = {a.n}, {a.plan['level']:.0%} intervals)",
        f"Accuracy over the bound of the attack, n = {a.n}. {told}.",
        None,
        partial(accuracy_against_bound, a),
    )
    if a.detection and a.detection.results:
        areas = "; ".join(
            f"{format_threat(r.threat, a.attack)}: {format_interval(r.auroc, as_percent=False)}"
            for r in a.detection.results
        )
        counts = sorted({r.n for r in a.detection.results})
        attacked = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
        yield Plot(
            "detection-roc",
            f"Detection of attacked images ({a.attack}, n = {a.n} clean, {attacked} attacked)",
            f"ROC curves of the detector, n = {a.n} clean, {attacked} attacked. "
            f"Area under the curve: {areas}.",
            None,
            partial(detection_roc, a),
        )


def _under(a: Assessment, threat: Threat) -> Iterator[Plot]:
    key = threat_key(threat)
    named = f"{format_threat(threat, a.attack)}, n = {a.n}"
    attacked, restored = a.condition("attacked", threat), a.condition("restored", threat)
    yield Plot(
        f"{key}-examples",
        f"Examples ({named})",
        "Rows of example images: clean, attacked and restored with the predicted class and its "
        f"confidence, and heatmaps of what attack and restoration changed; {named}.",
        threat,
        partial(draw_examples, a, threat),
        from_json=False,
        wide=True,
    )
    if len(shown_classes(a, threat)) <= MOST_CLASSES:
        yield Plot(
            f"{key}-confusion",
            f"Confusion matrices ({named})",
            "True against predicted class for clean, attacked and restored images; accuracy "
            f"{format_rate(a.condition('clean').accuracy)}, {format_rate(attacked.accuracy)} and "
            f"{format_rate(restored.accuracy)}; {named}.",
            threat,
            partial(confusion_matrices, a, threat),
            wide=True,
        )
    yield Plot(
        f"{key}-perturbation",
        f"Size of the perturbation ({named})",
        f"Histogram of the changes of all pixel values, within ±{format_eps(threat.eps)}; {named}.",
        threat,
        partial(perturbation_histogram, a, threat),
    )
    spreads = [c.quality for c in (attacked, restored) if c.quality]
    mse = " and ".join(format_number(q.mse.mean, 2) for q in spreads)
    psnr = " and ".join(format_number(q.psnr.mean) for q in spreads)
    yield Plot(
        f"{key}-mse",
        f"MSE of each image ({named})",
        f"Mean squared error of each attacked and restored image against its original; means "
        f"{mse}; {named}.",
        threat,
        partial(mse_per_image, a, threat),
        from_json=False,
    )
    yield Plot(
        f"{key}-psnr",
        f"PSNR of the images ({named})",
        f"Histogram of the PSNR of attacked and restored images against their originals; means "
        f"{psnr} dB; {named}.",
        threat,
        partial(psnr_histogram, a, threat),
        from_json=False,
    )
