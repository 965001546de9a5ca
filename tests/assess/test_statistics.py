from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jernih.assess.statistics import RESAMPLES, Bootstrap, compare, rate, spread
from jernih.validate import InputError


def wilson(k: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's interval in closed form."""
    share = k / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return centre - half, centre + half


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_rate_has_wilsons_interval(case: tuple[int, int]) -> None:
    k, n = case
    found = rate(np.arange(n) < k)
    low, high = wilson(k, n)
    assert (found.successes, found.n, found.value) == (k, n, k / n)
    assert found.low == pytest.approx(low, abs=1e-9)
    assert found.high == pytest.approx(high, abs=1e-9)
    assert found.low <= found.value <= found.high


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="at least one case"):
        rate(np.zeros(0, dtype=bool))


def test_spread_counts_infinities_and_leaves_them_and_absent_values_out() -> None:
    found = spread(np.array([1.0, 2.0, 6.0, np.inf, np.nan]))
    assert (found.mean, found.median, found.min, found.max) == (3.0, 2.0, 1.0, 6.0)
    assert found.std == pytest.approx(math.sqrt(7))
    assert (found.n, found.infinite) == (3, 1)
    assert spread(np.array([np.inf])).mean is None
    assert spread(np.array([4.0])).std is None


def test_bootstrap_agrees_with_resampling_one_by_one() -> None:
    values = np.random.default_rng(3).random(30).astype(np.float32)
    found = Bootstrap(30, seed=7, level=0.9).interval(lambda w: w @ values / 30)
    rng = np.random.default_rng(7)
    means = [values[rng.integers(0, 30, 30)].mean() for _ in range(RESAMPLES)]
    assert found.value == pytest.approx(values.mean(), rel=1e-5)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.05, 0.95])))
    assert (found.n, found.seed, found.resamples) == (30, 7, 1000)


def test_mcnemar_and_t_test_by_hand() -> None:
    first = np.array([True] * 12 + [False] * 8)
    second = first.copy()
    second[:9], second[-1] = False, True
    found = compare("clean", "attacked", None, first, second, Bootstrap(20, 0))
    assert (found.first_only, found.second_only) == (9, 1)
    # Of 10 images that differ, 1 or fewer on one side: 2 · (1 + 10) / 2¹⁰.
    assert found.mcnemar_p == pytest.approx(22 / 1024)
    delta = second.astype(float) - first
    t = delta.mean() / (delta.std(ddof=1) / math.sqrt(20))
    assert found.t == pytest.approx(t)
    assert found.difference.value == pytest.approx(-0.4)
    assert found.difference.low is not None
    assert found.difference.high is not None
    assert found.difference.low < -0.4 < found.difference.high


@pytest.mark.parametrize(
    ("first", "second", "t_p", "mcnemar_p", "remark"),
    [
        ([1, 0, 1], [1, 0, 1], 1.0, 1.0, "no differences"),
        ([1, 1, 1, 1], [0, 0, 0, 0], 0.0, 0.125, "infinite"),
        ([1], [0], None, 1.0, "two images"),
    ],
)
def test_degenerate_comparisons_have_no_nan(
    first: list[int], second: list[int], t_p: float | None, mcnemar_p: float, remark: str
) -> None:
    right = [np.array(values, dtype=bool) for values in (first, second)]
    found = compare("clean", "restored", None, right[0], right[1], Bootstrap(len(first), 0))
    assert found.t is None
    assert found.t_p == t_p
    assert found.mcnemar_p == pytest.approx(mcnemar_p)
    assert remark in found.remark


def test_resamples_of_many_images_are_drawn_anew_and_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.arange(30.0)
    kept = Bootstrap(30, seed=7).interval(lambda w: w @ values / 30)
    monkeypatch.setattr("jernih.assess.statistics.KEPT", 0)
    monkeypatch.setattr("jernih.assess.statistics.CHUNK", 70)
    many = Bootstrap(30, seed=7)
    assert many.interval(lambda w: w @ values / 30) == kept
    assert "weights" not in vars(many)
    assert max(len(piece) for piece in many.pieces()) == 2
