"""A threshold for a wanted recall: against brute force, and against counting by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score

from jernih.assess.observations import Array
from jernih.assess.operating_point import (
    OperatingPoint,
    ThresholdScores,
    choose_threshold,
    operating_point,
)
from jernih.assess.result import Cell
from jernih.assess.statistics import rate
from jernih.validate import InputError

CLASSES = ("healthy", "ill")


def recall(scores: Array, positive: Array, threshold: float) -> float:
    return float(np.count_nonzero(scores[positive] >= threshold) / np.count_nonzero(positive))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Array, Array, float]:
    """Probabilities with ties, labels with a positive one, and a share."""
    n = draw(st.integers(1, 30))
    some = st.sampled_from([0.0, 0.25, 0.5, 1 / 3, 1.0]) | st.floats(0, 1)
    scores = draw(st.lists(some, min_size=n, max_size=n))
    positive = draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any))
    share = st.integers(1, n).map(lambda k: k / n) | st.floats(0, 1, exclude_min=True)
    return np.array(scores), np.array(positive), draw(share)


@given(cases())
def test_the_wanted_recall_is_reached_by_no_larger_threshold(
    case: tuple[Array, Array, float],
) -> None:
    scores, positive, wanted = case
    threshold = choose_threshold(scores, positive, wanted)
    assert recall(scores, positive, threshold) >= wanted
    for larger in (*scores[scores > threshold], np.nextafter(threshold, 2)):
        assert recall(scores, positive, larger) < wanted


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_brute_force_over_all_thresholds(dtype: type) -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(100) < 0.3
    scores: Array = np.round(rng.beta(2, 2, 100) + 0.2 * positive, 2).clip(0, 1).astype(dtype)
    count = int(positive.sum())
    for wanted in (0.01, 0.07, 0.5, 0.9, 0.95, 0.98, 1.0, *(k / count for k in range(1, count))):
        reached = [float(t) for t in np.unique(scores) if recall(scores, positive, t) >= wanted]
        assert choose_threshold(scores, positive, wanted) == max(reached)


@pytest.mark.parametrize(("wanted", "needed"), [(0.07, 7), (0.98, 98), (1e-12, 1), (0.981, 99)])
def test_rounding_costs_no_image(wanted: float, needed: int) -> None:
    scores = np.linspace(1, 0, 100)
    assert choose_threshold(scores, np.ones(100, dtype=bool), wanted) == scores[needed - 1]


def found() -> tuple[OperatingPoint, Array, Array]:
    rng = np.random.default_rng(1)
    val_positive, positive = rng.random(60) < 0.5, rng.random(80) < 0.4
    val = rng.beta(2, 3, 60) * 0.8 + 0.2 * val_positive
    test = (rng.beta(2, 3, 80) * 0.8 + 0.2 * positive).astype(np.float32)
    point = operating_point(
        val, val_positive, test, positive, classes=CLASSES, wanted_recall=0.9, level=0.9
    )
    assert point.threshold == choose_threshold(val, val_positive, 0.9)
    assert point.validation.recall.value == recall(val, val_positive, point.threshold) >= 0.9
    assert point.validation.n == 60
    return point, test, positive


def test_scores_agree_with_scikit_learn() -> None:
    point, test, positive = found()
    assert (point.positive, point.wanted_recall) == ("ill", 0.9)
    for scores, threshold in ((point.default, 0.5), (point.chosen, point.threshold)):
        flagged = test.astype(np.float64) >= threshold
        assert scores.n == 80
        assert scores.f1 == pytest.approx(f1_score(positive, flagged))
        assert scores.balanced_accuracy == pytest.approx(balanced_accuracy_score(positive, flagged))
        assert scores.precision is not None
        assert scores.precision.value == pytest.approx(precision_score(positive, flagged))
        assert scores.accuracy == rate(flagged == positive, 0.9)
        assert scores.recall == rate(flagged[positive], 0.9)
        assert scores.specificity == rate(~flagged[~positive], 0.9)
        cells = {(c.true, c.predicted): c.count for c in scores.confusion}
        assert cells == {
            (CLASSES[t], CLASSES[p]): int(((positive == t) & (flagged == p)).sum())
            for t in (0, 1)
            for p in (0, 1)
        }
    assert point.chosen.recall.value > point.default.recall.value


def test_there_and_back_through_json() -> None:
    point, _, _ = found()
    text = json.dumps(point.to_dict(), allow_nan=False)
    assert OperatingPoint.from_dict(json.loads(text)) == point
    with pytest.raises(InputError, match=r"operating point chosen\.n: .* layout"):
        OperatingPoint.from_dict(
            {**point.to_dict(), "chosen": {**point.to_dict()["chosen"], "n": "x"}}
        )


def scored(test: list[float], wanted: float = 1.0) -> OperatingPoint:
    half = np.array([False, False, True, True])
    val = np.array([0.1, 0.5, 0.5, 0.8])
    return operating_point(val, half, np.array(test), half, classes=CLASSES, wanted_recall=wanted)


def test_one_half_is_flagged_by_a_threshold_of_one_half_but_not_by_the_classifier() -> None:
    point = scored([0.1, 0.2, 0.5, 0.9])
    assert point.threshold == 0.5
    assert point.validation.recall.value == 1
    assert point.chosen.recall.value == 1
    assert point.default.recall.value == 0.5


def test_where_nothing_is_flagged_there_is_no_precision() -> None:
    nothing: ThresholdScores = scored([0.1, 0.2, 0.3, 0.4]).default
    assert nothing.precision is None
    assert nothing.f1 == 0
    assert nothing.balanced_accuracy == 0.5
    assert nothing.confusion == (Cell("healthy", "healthy", 2), Cell("ill", "healthy", 2))


def test_refusals() -> None:
    scores, positive = np.array([0.2, 0.7]), np.array([False, True])
    with pytest.raises(InputError, match="at least one positive"):
        choose_threshold(scores, np.zeros(2, dtype=bool), 0.9)
    for wanted in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="wanted_recall"):
            choose_threshold(scores, positive, wanted)
    with pytest.raises(InputError, match=r"is_positive: expected bool \(2,\)"):
        choose_threshold(scores, positive.astype(int), 0.9)
    with pytest.raises(InputError, match=r"is_positive: expected bool \(2,\)"):
        choose_threshold(scores, np.ones(3, dtype=bool), 0.9)
    with pytest.raises(InputError, match=r"probabilities: expected shape \(n,\)"):
        choose_threshold(scores[None], positive[None], 0.9)
    for bad in (np.array([0.2, np.nan]), np.array([0.2, 1.5])):
        with pytest.raises(InputError, match=r"probabilities: expected values in \[0, 1\]"):
            choose_threshold(bad, positive, 0.9)

    def point(val: Array, test: Array) -> OperatingPoint:
        return operating_point(scores, val, scores, test, classes=CLASSES, wanted_recall=0.9)

    for one in (np.zeros(2, dtype=bool), np.ones(2, dtype=bool)):
        with pytest.raises(InputError, match="val_positive: expected images of both"):
            point(one, positive)
        with pytest.raises(InputError, match="test_positive: expected images of both"):
            point(positive, one)
