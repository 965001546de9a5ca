"""Published figures laid beside the ones that an assessment measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jernih.assess.result import Assessment, ClassScores, Condition, Rate
from jernih.assess.survey_result import Survey, SurveyRow
from jernih.assess.words import (
    DASH,
    by_class,
    format_eps,
    format_rate,
    format_threat,
    percent,
)
from jernih.config import Published, PublishedFigure
from jernih.types import Threat
from jernih.validate import InputError

_SHARES = ("accuracy", "precision", "recall", "f1")


@dataclass(frozen=True)
class ComparedFigure:
    """One row of the table "published vs measured", as text.

    Attributes:
        figure: what the publication calls it.
        published: its value there.
        measured: its counterpart here, with an interval where it is a share of images.
        difference: measured less published, in the figure's own unit.
        beside: for accuracies in a label space of at most twelve: balanced accuracy and the recall
            of each class, since accuracy alone misleads where classes are unequal.
        threat: under which threat model it was measured, and on how many images.
        adaptive: for restored images: accuracy when the attack goes through the purifier, by the
            strongest attack that was run so; which and on how many images.
    """

    figure: str
    published: str
    measured: str
    difference: str
    beside: str
    threat: str
    adaptive: str


def lay_beside(
    published: Published, assessment: Assessment, surveys: Sequence[Survey] = ()
) -> tuple[ComparedFigure, ...]:
    """Find the measured counterpart of every published figure.

    Args:
        published: the publication's figures. Those of attacks are compared with the oblivious
            attacker's, since the studies' attackers know the classifier alone.
        assessment: what was measured here.
        surveys: where results of an adaptive attack of many steps are looked for.

    Raises:
        InputError: for a figure whose bound or class is not among the assessment's.
    """
    return tuple(_compare(figure, assessment, surveys) for figure in published.figures)


def nearest_bound(published: Published, surveys: Sequence[Survey]) -> str | None:
    """A sentence on the bound whose attacked accuracy is nearest to the published one.

    None when the publication names no such accuracy or no survey swept bounds.
    """
    if published.nearest is None:
        return None
    swept = [
        (abs(row.accuracy.value - published.nearest), survey, row)
        for survey in surveys
        for row in survey.rows
        if row.purifier == "none" and row.threat is not None and len(survey.threats) > 3
    ]
    if not swept:
        return None
    _, survey, row = min(swept, key=lambda found: found[0])
    low = min(s.eps for s in survey.threats)
    high = max(s.eps for s in survey.threats)
    return (
        f"The publication gives no bound. Of those from {format_eps(low)} to {format_eps(high)} "
        f"the one that comes nearest to its attacked accuracy of {percent(published.nearest)} is "
        f"{format_threat(row.threat, survey.attack_name)}: {format_rate(row.accuracy)} of "
        f"{row.n} images."
    )


def _compare(
    figure: PublishedFigure, assessment: Assessment, surveys: Sequence[Survey]
) -> ComparedFigure:
    threat = None
    if figure.which in ("attacked", "restored"):
        if figure.eps is None:
            raise InputError(f"published figure {figure.figure!r}", "eps", "none")
        threat = Threat("linf", figure.eps, "oblivious")
    condition = assessment.condition(figure.which, threat)
    value, text = _measured(figure, condition)
    share = figure.measure in _SHARES
    shown = {
        "psnr": f"{figure.value:g} dB",
        "mse": f"{figure.value:g}",
    }.get(figure.measure, percent(figure.value) if share else f"{figure.value:g}")
    unit = " points" if share else " dB" if figure.measure == "psnr" else ""
    digits = 1 if share or figure.measure == "psnr" else 4 if figure.measure == "mse" else 0
    difference = (value - figure.value) * (100 if share else 1)
    return ComparedFigure(
        figure=figure.figure,
        published=shown,
        measured=text,
        difference=f"{difference:+.{digits}f}{unit}",
        beside=by_class(condition) if figure.measure == "accuracy" else DASH,
        threat=f"{format_threat(threat, assessment.attack)}, n = {condition.n}",
        adaptive=_adaptive(figure, assessment, surveys),
    )


def _measured(figure: PublishedFigure, condition: Condition) -> tuple[float, str]:
    """The counterpart as a number and as text."""
    accuracy = condition.accuracy
    if figure.measure == "accuracy":
        return accuracy.value, format_rate(accuracy)
    if figure.measure in ("right", "wrong"):
        right = accuracy.successes
        count = right if figure.measure == "right" else accuracy.n - right
        share = accuracy if figure.measure == "right" else _complement(accuracy)
        return count, f"{count} of {accuracy.n}: {format_rate(share)}"
    if figure.measure in ("mse", "psnr"):
        spread = getattr(condition.quality, figure.measure) if condition.quality else None
        if spread is None or spread.mean is None:
            raise InputError(f"published figure {figure.figure!r}", "changed images", "clean ones")
        unit = " dB" if figure.measure == "psnr" else ""
        digits = 4 if figure.measure == "mse" else 3
        return spread.mean, (
            f"{spread.mean:.{digits}g}{unit} ({spread.min:.{digits}g} to {spread.max:.{digits}g})"
        )
    if figure.measure == "confusion":
        cells = (c for c in condition.confusion if c.true == figure.label)
        count = sum(c.count for c in cells if c.predicted == figure.predicted)
        return count, f"{count}"
    found = _of_class(figure, condition)
    score = float(getattr(found, figure.measure))
    return score, f"{percent(score)} ({found.support} images)"


def _of_class(figure: PublishedFigure, condition: Condition) -> ClassScores:
    for found in condition.per_class:
        if found.name == figure.label:
            return found
    known = ", ".join(scores.name for scores in condition.per_class)
    raise InputError(f"published figure {figure.figure!r}", f"label: one of {known}", figure.label)


def _complement(rate: Rate) -> Rate:
    return Rate(
        1 - rate.value, rate.n - rate.successes, rate.n, 1 - rate.high, 1 - rate.low,
        rate.level, rate.method,
    )  # fmt: skip


def _adaptive(figure: PublishedFigure, assessment: Assessment, surveys: Sequence[Survey]) -> str:
    if figure.which != "restored" or figure.eps is None or figure.measure in ("mse", "psnr"):
        return DASH
    threat = Threat("linf", figure.eps, "adaptive")
    found: list[tuple[int, str, SurveyRow]] = []
    for survey in surveys:
        row = survey.row("main", threat)
        if row is not None:
            found.append((int(survey.attack.get("steps", 1)), survey.attack_name, row))
    if found:
        _, attack, row = max(found, key=lambda entry: entry[0])
        return f"{format_rate(row.accuracy)} (adaptive {attack}, n = {row.n})"
    if threat in assessment.threats:
        condition = assessment.condition("restored", threat)
        return (
            f"{format_rate(condition.accuracy)} (adaptive {assessment.attack}, n = {condition.n})"
        )
    return DASH
