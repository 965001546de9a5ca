"""Scores of predictions: per class, averaged, and as curves, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.metrics import precision_recall_fscore_support, roc_curve

from jernih.assess.result import Cell, ClassScores, Curve, Interval, Rate
from jernih.assess.statistics import Array, Bootstrap, Estimate, rate

FPRS = (0.05, 0.01)
"""Shares of false alarms at which the share of attacked images found is told."""

CURVE_POINTS = 200
"""A ROC curve is thinned to about this many points."""


@dataclass(frozen=True)
class Scores:
    """What :func:`score` finds; the fields are those of a condition of the same name."""

    accuracy: Rate
    balanced_accuracy: Interval
    f1_macro: Interval
    auroc: Interval | None
    roc: Curve | None
    per_class: tuple[ClassScores, ...]
    macro: ClassScores
    weighted: ClassScores
    confusion: tuple[Cell, ...]
    top_prediction: str
    top_share: Rate


def score(
    labels: Array,
    predictions: Array,
    probability: Array,
    classes: Sequence[str],
    bootstrap: Bootstrap,
) -> Scores:
    """Score predictions against labels.

    Averages over classes run over those present among the labels, since a class without images
    has no recall. A class that is never predicted has precision 0.

    Args:
        labels: class indices (n,).
        predictions: class indices (n,).
        probability: probability of the second class (n,), used with two classes only.
        classes: the label space.
        bootstrap: resamples of the n images.
    """
    level = bootstrap.level
    present = np.unique(labels)
    columns = precision_recall_fscore_support(labels, predictions, labels=present, zero_division=0)
    per_class = tuple(
        ClassScores(classes[index], float(p), float(r), float(f), int(support))
        for index, p, r, f, support in zip(present, *columns, strict=True)
    )
    balanced, f1 = _class_estimates(labels, predictions, present)
    auroc = roc = None
    if len(classes) == 2 and len(present) == 2:
        auroc, roc = ranking(probability, labels == 1, np.arange(len(labels)), bootstrap)
    common = int(np.bincount(predictions).argmax())
    return Scores(
        accuracy=rate(predictions == labels, level),
        balanced_accuracy=bootstrap.interval(balanced),
        f1_macro=bootstrap.interval(f1),
        auroc=auroc,
        roc=roc,
        per_class=per_class,
        macro=_average("macro average", per_class, np.ones(len(per_class))),
        weighted=_average("weighted average", per_class, columns[3]),
        confusion=_confusion(labels, predictions, classes),
        top_prediction=classes[common],
        top_share=rate(predictions == common, level),
    )


def balanced_accuracy(labels: Array, predictions: Array, bootstrap: Bootstrap) -> Interval:
    """Mean recall over the classes present, with its interval.

    Args:
        labels: class indices (n,).
        predictions: class indices (n,).
        bootstrap: resamples of the n images.
    """
    return bootstrap.interval(_class_estimates(labels, predictions, np.unique(labels))[0])


def _average(name: str, rows: Sequence[ClassScores], weights: Array) -> ClassScores:
    table = np.array([(row.precision, row.recall, row.f1) for row in rows])
    precision, recall, f1 = (float(v) for v in np.average(table, axis=0, weights=weights))
    return ClassScores(name, precision, recall, f1, sum(row.support for row in rows))


def _confusion(labels: Array, predictions: Array, classes: Sequence[str]) -> tuple[Cell, ...]:
    pairs, counts = np.unique(np.stack([labels, predictions], axis=1), axis=0, return_counts=True)
    return tuple(
        Cell(classes[true], classes[predicted], int(count))
        for (true, predicted), count in zip(pairs, counts, strict=True)
    )


def _class_estimates(
    labels: Array, predictions: Array, present: Array
) -> tuple[Estimate, Estimate]:
    """Balanced accuracy and macro F1 as functions of the images' weights."""

    def members(values: Array) -> sparse.csr_array:
        row, column = np.nonzero(values[:, None] == present[None, :])
        ones = np.ones(len(row), dtype=np.float32)
        return sparse.csr_array((ones, (row, column)), shape=(len(values), len(present)))

    is_true, is_predicted = members(labels), members(predictions)
    hit = members(np.where(labels == predictions, labels, -1))

    def balanced(weights: Array) -> Array:
        support = weights @ is_true
        recall = np.divide(weights @ hit, support, where=support > 0, out=np.zeros_like(support))
        mean: Array = recall.sum(1) / (support > 0).sum(1)
        return mean

    def f1(weights: Array) -> Array:
        support = weights @ is_true
        total = support + weights @ is_predicted
        twice = 2 * (weights @ hit)
        each = np.divide(twice, total, where=support > 0, out=np.zeros_like(support))
        mean: Array = each.sum(1) / (support > 0).sum(1)
        return mean

    return balanced, f1


def ranking(
    scores: Array, positive: Array, image: Array, bootstrap: Bootstrap
) -> tuple[Interval, Curve]:
    """Area under the ROC curve with its interval, and the curve.

    Args:
        scores: scores (m,), higher for the positive class.
        positive: bool (m,), some True and some False.
        image: the image that each score belongs to (m,), so that scores of one image are
            resampled together.
        bootstrap: resamples of the images.
    """
    fpr, tpr, _ = roc_curve(positive, scores)
    if len(fpr) > CURVE_POINTS:
        kept = np.unique(np.linspace(0, len(fpr) - 1, CURVE_POINTS).astype(int))
        fpr, tpr = fpr[kept], tpr[kept]
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    is_positive = positive[order].astype(np.float64)

    def area(weights: Array) -> Array:
        spread_out = weights[:, image[order]].astype(np.float64)
        above = np.add.reduceat(spread_out * is_positive, starts, axis=1)
        below = np.add.reduceat(spread_out * (1 - is_positive), starts, axis=1)
        wins = (above * (below.cumsum(1) - below / 2)).sum(1)
        pairs = above.sum(1) * below.sum(1)
        found: Array = np.divide(wins, pairs, where=pairs > 0, out=np.full_like(wins, np.nan))
        return found

    # With several scores an image, one drawn twice is compared with its own copy too often.
    found = bootstrap.interval(area, centred=len(scores) > bootstrap.n)
    return found, Curve(tuple(map(float, fpr)), tuple(map(float, tpr)))


def least_flagged(clean: Array, fpr: float) -> float:
    """The lowest threshold above which at most a share ``fpr`` of the clean scores (n,) lies."""
    allowed = int(fpr * len(clean) + 1e-9)
    return float(np.sort(clean)[len(clean) - 1 - allowed])
