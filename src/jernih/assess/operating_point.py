"""A decision threshold that finds a wanted share of one class, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from pydantic import TypeAdapter, ValidationError

from jernih.assess.result import Cell, Rate
from jernih.assess.statistics import Array, rate
from jernih.storage import to_json
from jernih.validate import RANGE_TOLERANCE, InputError


@dataclass(frozen=True)
class ThresholdScores:
    """What a threshold makes of some images.

    Attributes:
        which: which images and which threshold.
        n: number of images.
        accuracy: share of right answers.
        balanced_accuracy: mean of recall and specificity.
        recall: share of the positive images that is flagged.
        specificity: share of the negative images that is not flagged.
        precision: share of the flagged images that is positive; None when none is flagged.
        f1: F1 score of the positive class.
        confusion: the non-empty cells of the confusion matrix.
    """

    which: str
    n: int
    accuracy: Rate
    balanced_accuracy: float
    recall: Rate
    specificity: Rate
    precision: Rate | None
    f1: float
    confusion: tuple[Cell, ...]


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and its scores.

    The recall on the validation images is at least the wanted one because the threshold was
    chosen on them; what it comes to elsewhere the test images tell.

    Attributes:
        positive: the class that must not be missed.
        wanted_recall: the share of it that has to be found.
        threshold: images are flagged whose probability of this class is at least so high.
        validation: scores of the images that the threshold was chosen on.
        default: scores of the test images under the classifier's own answer, which flags
            probabilities above 0.5.
        chosen: scores of the test images under the threshold.
    """

    positive: str
    wanted_recall: float
    threshold: float
    validation: ThresholdScores
    default: ThresholdScores
    chosen: ThresholdScores

    def to_dict(self) -> dict[str, Any]:
        """The operating point as plain data."""
        plain: dict[str, Any] = json.loads(to_json(asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The operating point that :meth:`to_dict` described.

        Raises:
            InputError: for another layout.
        """
        try:
            return TypeAdapter(cls).validate_python(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            wanted = "the layout of an OperatingPoint"
            raise InputError(f"operating point {where}", wanted, first["msg"]) from None


def choose_threshold(probabilities: Array, is_positive: Array, wanted_recall: float) -> float:
    """The largest threshold t at which flagging p ≥ t finds the wanted share of the positives.

    Args:
        probabilities: probability of the positive class of each image, (n,) in [0, 1].
        is_positive: whether each image is positive, bool (n,).
        wanted_recall: the share, in (0, 1].

    Returns:
        the threshold, which is the probability of one of the positive images.

    Raises:
        InputError: when no image is positive, for a share out of range, and for arrays of another
            kind.

    Example:
        >>> choose_threshold(np.array([0.9, 0.6, 0.4, 0.2]), np.array([1, 1, 1, 0]) == 1, 0.66)
        0.6
    """
    scores, positive = _checked("", probabilities, is_positive)
    if not 0 < wanted_recall <= 1:
        raise InputError("wanted_recall", "a share above 0 and at most 1", wanted_recall)
    hits = np.sort(scores[positive])[::-1]
    if len(hits) == 0:
        raise InputError("is_positive", "at least one positive image", "none")
    # Recalls are compared as they are reported: 0.07 · 100 would be a little more than 7.
    recalls = np.arange(1, len(hits) + 1) / len(hits)
    return float(hits[np.searchsorted(recalls, wanted_recall)])


def operating_point(
    val_probabilities: Array,
    val_positive: Array,
    test_probabilities: Array,
    test_positive: Array,
    *,
    classes: tuple[str, str],
    wanted_recall: float,
    level: float = 0.95,
) -> OperatingPoint:
    """Choose a threshold on validation images and see what it does on test images.

    Args:
        val_probabilities: probability of the positive class of each validation image, (n,).
        val_positive: whether each of them is positive, bool (n,).
        test_probabilities: the same for the test images, (m,).
        test_positive: whether each of them is positive, bool (m,).
        classes: the negative and the positive class.
        wanted_recall: the share of the positive images that has to be found, in (0, 1].
        level: confidence level of the intervals (Wilson).

    Raises:
        InputError: when validation or test images lack one of the classes, for a share out of
            range, and for arrays of another kind.
    """
    val, is_positive = _checked("val_", val_probabilities, val_positive)
    test, test_is_positive = _checked("test_", test_probabilities, test_positive)
    for name, labels in (("val_positive", is_positive), ("test_positive", test_is_positive)):
        if labels.all() or not labels.any():
            raise InputError(name, "images of both classes", f"{len(labels)} of one class")
    threshold = choose_threshold(val, is_positive, wanted_recall)
    return OperatingPoint(
        positive=classes[1],
        wanted_recall=float(wanted_recall),
        threshold=threshold,
        validation=_scores(
            "validation, chosen threshold", val >= threshold, is_positive, classes, level
        ),
        default=_scores("test, threshold 0.5", test > 0.5, test_is_positive, classes, level),
        chosen=_scores(
            "test, chosen threshold", test >= threshold, test_is_positive, classes, level
        ),
    )


def _scores(
    which: str, flagged: Array, positive: Array, classes: tuple[str, str], level: float
) -> ThresholdScores:
    recall = rate(flagged[positive], level)
    specificity = rate(~flagged[~positive], level)
    counts = {
        (true, said): int(np.count_nonzero((positive == true) & (flagged == said)))
        for true in (0, 1)
        for said in (0, 1)
    }
    claimed = int(np.count_nonzero(flagged))
    return ThresholdScores(
        which=which,
        n=len(positive),
        accuracy=rate(flagged == positive, level),
        balanced_accuracy=(recall.value + specificity.value) / 2,
        recall=recall,
        specificity=specificity,
        precision=rate(positive[flagged], level) if claimed else None,
        f1=2 * recall.successes / (claimed + recall.n),
        confusion=tuple(
            Cell(classes[true], classes[said], count)
            for (true, said), count in counts.items()
            if count
        ),
    )


def _checked(prefix: str, probabilities: Array, positive: Array) -> tuple[Array, Array]:
    """Probabilities in double precision, so that comparisons lose nothing, and the labels."""
    scores, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(positive)
    name = f"{prefix}positive" if prefix else "is_positive"
    if scores.ndim != 1:
        raise InputError(f"{prefix}probabilities", "shape (n,)", scores.shape)
    if labels.dtype != np.bool_ or labels.shape != scores.shape:
        raise InputError(name, f"bool ({len(scores)},)", f"{labels.dtype} {labels.shape}")
    within = (scores >= -RANGE_TOLERANCE) & (scores <= 1 + RANGE_TOLERANCE)  # False for NaN
    if not within.all():
        raise InputError(f"{prefix}probabilities", "values in [0, 1]", scores[~within][0])
    return scores, labels
