"""A decision threshold that finds a wanted share of one class, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jernih.assess.result import Cell, Rate
from jernih.assess.statistics import Array, rate
from jernih.validate import InputError


@dataclass(frozen=True)
class ThresholdScores:
    """What a threshold makes of some images.

    Attributes:
        which: which images and which threshold.
        n: number of images.
        accuracy: share of right answers.
        balanced_accuracy: mean of recall and specificity.
        recall: share of the positive images that is found.
        specificity: share of the negative ones that is left in peace.
        precision: share of the answers "positive" that are right; None when there is none.
        f1: F1 score of the positive class.
        confusion: the four cells of the confusion matrix.
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

    Attributes:
        positive: the class that must not be missed.
        wanted_recall: the share of it that has to be found.
        threshold: probabilities from it on count as positive.
        validation: scores of the images that it was chosen on.
        default: scores of the test images at 0.5.
        chosen: scores of the test images at the threshold.
    """

    positive: str
    wanted_recall: float
    threshold: float
    validation: ThresholdScores
    default: ThresholdScores
    chosen: ThresholdScores


def choose_threshold(probabilities: Array, is_positive: Array, wanted_recall: float) -> float:
    """The largest threshold at which the wanted share of the positive images is found.

    Args:
        probabilities: probability of the positive class (n,).
        is_positive: bool (n,).
        wanted_recall: the share, in (0, 1].

    Raises:
        InputError: when no image is positive, or for a share out of range.
    """
    if not 0 < wanted_recall <= 1:
        raise InputError("wanted_recall", "a share above 0 and at most 1", wanted_recall)
    scores = np.sort(np.asarray(probabilities)[np.asarray(is_positive, dtype=bool)])
    if len(scores) == 0:
        raise InputError("is_positive", "at least one positive image", "none")
    # The small number keeps 0.98 · 50 from counting as a little more than 49.
    needed = int(np.ceil(wanted_recall * len(scores) - 1e-9))
    return float(scores[len(scores) - needed])


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
        val_probabilities: probability of the second class of each validation image (n,).
        val_positive: whether each is of the second class.
        test_probabilities: the same for test images (m,).
        test_positive: whether each is of the second class.
        classes: the two classes; the second is the one that must not be missed.
        wanted_recall: the share of it that has to be found.
        level: confidence level of the intervals.

    Raises:
        InputError: when either set lacks one of the classes.
    """
    for name, positive in (("val_positive", val_positive), ("test_positive", test_positive)):
        if not 0 < int(np.count_nonzero(positive)) < len(positive):
            raise InputError(name, "images of both classes", f"{len(positive)} of one")
    threshold = choose_threshold(val_probabilities, val_positive, wanted_recall)

    def scores(which: str, probabilities: Array, positive: Array, at: float) -> ThresholdScores:
        # As the classifier itself decides, a probability of exactly one half is negative.
        found = probabilities > 0.5 if at == 0.5 else probabilities >= at
        return _scores(which, found, np.asarray(positive, dtype=bool), classes, level)

    return OperatingPoint(
        positive=classes[1],
        wanted_recall=wanted_recall,
        threshold=threshold,
        validation=scores("validation", val_probabilities, val_positive, threshold),
        default=scores("test, 0.5", test_probabilities, test_positive, 0.5),
        chosen=scores("test, chosen", test_probabilities, test_positive, threshold),
    )


def _scores(
    which: str, found: Array, positive: Array, classes: tuple[str, str], level: float
) -> ThresholdScores:
    recall = rate(found[positive], level)
    specificity = rate(~found[~positive], level)
    hits, claimed = int((found & positive).sum()), int(found.sum())
    cells = tuple(
        Cell(classes[true], classes[said], int(((positive == true) & (found == said)).sum()))
        for true in (0, 1)
        for said in (0, 1)
    )
    return ThresholdScores(
        which=which,
        n=len(positive),
        accuracy=rate(found == positive, level),
        balanced_accuracy=(recall.value + specificity.value) / 2,
        recall=recall,
        specificity=specificity,
        precision=rate(positive[found], level) if claimed else None,
        f1=2 * hits / (claimed + int(positive.sum())),
        confusion=cells,
    )
