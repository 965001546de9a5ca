"""Intervals and paired tests: how far the numbers can be trusted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from jernih.assess.result import Interval, PairedTest, Rate, Spread, Which
from jernih.types import Threat
from jernih.validate import InputError

Array = NDArray[Any]

Estimate = Callable[[Array], Array]
"""Weights of the images in each resample (R, n) → an estimate from each (R,)."""

RESAMPLES = 1000

CHUNK = 500_000
"""Most weights that an estimate is given at once, which bounds its memory."""
KEPT = 4_000_000
"""Most weights that are kept for the next estimate; above, they are drawn anew for each."""


def finite(value: Any) -> float | None:
    """The value as a float, or None for NaN and infinities, which JSON does not have."""
    number = float(value)
    return number if np.isfinite(number) else None


def rate(hits: Array, level: float = 0.95) -> Rate:
    """The share of True among independent cases, with Wilson's interval (Wilson 1927).

    Args:
        hits: bool (n,), n ≥ 1.
        level: confidence level.

    Raises:
        InputError: when there are no cases.
    """
    n, successes = len(hits), int(np.count_nonzero(hits))
    if n == 0:
        raise InputError("hits", "at least one case", "none")
    interval = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return Rate(
        successes / n, successes, n, float(interval.low), float(interval.high), level, "wilson"
    )


def spread(values: Array) -> Spread:
    """Mean, standard deviation, median and range of the finite values; NaN stands for absent."""
    present = values[~np.isnan(values)]
    kept = present[np.isfinite(present)]
    infinite = len(present) - len(kept)
    if len(kept) == 0:
        return Spread(None, None, None, None, None, 0, infinite)
    return Spread(
        mean=float(kept.mean()),
        std=float(kept.std(ddof=1)) if len(kept) > 1 else None,
        median=float(np.median(kept)),
        min=float(kept.min()),
        max=float(kept.max()),
        n=len(kept),
        infinite=infinite,
    )


class Bootstrap:
    """Percentile bootstrap over images (Efron 1979), one set of resamples for all estimates.

    Args:
        n: number of images.
        seed: seed of the resampling.
        level: confidence level.
    """

    def __init__(self, n: int, seed: int, level: float = 0.95) -> None:
        self.n = n
        self.seed = seed
        self.level = level

    @functools.cached_property
    def weights(self) -> Array:
        """How often each image is in each resample, float32 (resamples, n)."""
        return np.concatenate(list(self._drawn()))

    def pieces(self) -> Iterator[Array]:
        """The resamples, a few at a time, as rows of :attr:`weights`."""
        if self.n * RESAMPLES > KEPT:
            return self._drawn()
        return iter(np.array_split(self.weights, max(1, self.weights.size // CHUNK)))

    def _drawn(self) -> Iterator[Array]:
        rng = np.random.default_rng(self.seed)
        rows = max(1, CHUNK // self.n)
        for start in range(0, RESAMPLES, rows):
            piece = np.empty((min(rows, RESAMPLES - start), self.n), dtype=np.float32)
            for row in piece:
                row[:] = np.bincount(rng.integers(0, self.n, self.n), minlength=self.n)
            yield piece

    def interval(self, estimate: Estimate, *, centred: bool = False) -> Interval:
        """Interval of an estimate.

        Args:
            estimate: weights (R, n) → estimates (R,), NaN where a resample allows none.
            centred: for shares that resamples get wrong on the average: by how much, is taken from
                them, and what then lies outside [0, 1] is cut.
        """
        value = float(estimate(np.ones((1, self.n), dtype=np.float32))[0])
        found = np.concatenate([estimate(weights) for weights in self.pieces()])
        found = found[np.isfinite(found)]
        low = high = None
        if len(found) and np.isfinite(value):
            if centred:
                found = (found + value - found.mean()).clip(0, 1)
            tail = (1 - self.level) / 2
            low, high = (float(v) for v in np.quantile(found, [tail, 1 - tail]))
        return Interval(
            finite(value), low, high, self.n, self.level, "bootstrap", RESAMPLES, self.seed
        )


def compare(
    first: Which,
    second: Which,
    threat: Threat | None,
    right_first: Array,
    right_second: Array,
    bootstrap: Bootstrap,
) -> PairedTest:
    """Compare two conditions on the same images.

    The paired t-test treats 0/1 correctness as a number and is approximate; McNemar's exact test
    (McNemar 1947) asks whether the images on which the two differ lean to one side.

    Args:
        first: name of one condition.
        second: name of the other.
        threat: threat model of the attacked one.
        right_first: which images are right in the first, bool (n,).
        right_second: which are right in the second, bool (n,).
        bootstrap: resamples of the n images.
    """
    delta = right_second.astype(np.float32) - right_first.astype(np.float32)
    lost = int(np.count_nonzero(right_first & ~right_second))
    gained = int(np.count_nonzero(~right_first & right_second))
    t, t_p, remark = _paired_t(right_first, right_second)
    discordant = lost + gained
    mcnemar_p = float(stats.binomtest(lost, discordant).pvalue) if discordant else 1.0
    return PairedTest(
        first=first,
        second=second,
        threat=threat,
        n=len(delta),
        difference=bootstrap.interval(lambda weights: weights @ delta / len(delta)),
        t=t,
        t_p=t_p,
        first_only=lost,
        second_only=gained,
        mcnemar_p=mcnemar_p,
        remark=remark,
    )


def _paired_t(first: Array, second: Array) -> tuple[float | None, float | None, str]:
    delta = second.astype(np.float64) - first.astype(np.float64)
    if not delta.any():
        return None, 1.0, "no differences: both are right and wrong on the same images"
    if len(delta) < 2:
        return None, None, "a t-test needs two images"
    if np.ptp(delta) == 0:
        return None, 0.0, "every image changed the same way: t is infinite"
    result = stats.ttest_rel(second.astype(np.float64), first.astype(np.float64))
    return float(result.statistic), float(result.pvalue), ""
