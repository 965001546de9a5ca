"""Ways to a plane within [0, 1] against solvers of linear and quadratic programs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from torch import Tensor, nn

from jernih.attacks import distance
from jernih.attacks.hyperplane import nearest_boundary, way_to_plane
from jernih.randomness import generator
from jernih.types import Norm

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")


def problems(count: int, side: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Points, normals and what is missing; many pixels are black or white, some do not matter."""
    source = generator("hyperplane", count)
    points = (torch.rand(count, 1, side, side, generator=source) * 2 - 0.5).clamp(0, 1)
    normals = torch.randn(points.shape, generator=source)
    normals = torch.where(torch.rand(points.shape, generator=source) < 0.2, 0, normals)
    missing = torch.randn(count, generator=source)
    return points, normals, missing


def least(point: Tensor, normal: Tensor, missing: float, norm: Norm) -> float | None:
    """The size of the shortest way, by scipy; None where there is none."""
    x, w = (t.flatten().double().numpy() for t in (point, normal))
    n = len(x)
    if norm == "l2":
        highest = float(np.where(w * missing > 0, 1 - x, -x) @ w)
        if abs(missing) > abs(highest):
            return None
        start = missing / highest * np.where(w * missing > 0, 1 - x, -x)
        found = minimize(
            lambda d: d @ d,
            start,
            jac=lambda d: 2 * d,
            bounds=list(zip(-x, 1 - x, strict=True)),
            constraints={"type": "eq", "fun": lambda d: w @ d - missing, "jac": lambda d: w},
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )
        assert found.success
        return float(np.sqrt(found.fun))
    # Variables: the step, and the bounds on its pixels' sizes (one for all in L∞) to minimise.
    sizes = 1 if norm == "linf" else n
    spread = np.ones((n, 1)) if norm == "linf" else np.eye(n)
    found = linprog(
        np.r_[np.zeros(n), np.ones(sizes)],
        A_ub=np.block([[np.eye(n), -spread], [-np.eye(n), -spread]]),
        b_ub=np.zeros(2 * n),
        A_eq=np.r_[w, np.zeros(sizes)][None],
        b_eq=[missing],
        bounds=[*zip(-x, 1 - x, strict=True), *[(0, None)] * sizes],
    )
    return float(found.fun) if found.status == 0 else None


@pytest.mark.parametrize("norm", NORMS)
def test_agrees_with_scipy(norm: Norm) -> None:
    points, normals, missing = problems(60)
    steps = way_to_plane(points, normals, missing, norm)
    sizes = distance(points, points + steps, norm)
    gained = (normals * steps).flatten(1).sum(1)
    unreachable = 0
    for i in range(len(points)):
        expected = least(points[i], normals[i], float(missing[i]), norm)
        if expected is None:
            unreachable += 1
            toward = normals[i] * missing[i]
            end = torch.where(toward > 0, 1, torch.where(toward < 0, 0, points[i]))
            torch.testing.assert_close(points[i] + steps[i], end)
        else:
            assert float(gained[i]) == pytest.approx(float(missing[i]), abs=1e-5)
            assert float(sizes[i]) == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert 0 < unreachable < 30


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([1e-20, 1e-6, 1.0, 1e6]),
    share=st.floats(0, 0.999),
)
def test_reaches_the_plane_within_the_range(
    norm: Norm, seed: int, scale: float, share: float
) -> None:
    source = generator(seed)
    points = torch.rand(1, 3, 16, 16, generator=source)
    normals = torch.randn(points.shape, generator=source)
    most = float((normals.clamp_min(0) * (1 - points) - normals.clamp_max(0) * points).sum())
    missing = torch.tensor([share * most])
    steps = way_to_plane(points, scale * normals, scale * missing, norm)
    assert float((points + steps).min()) >= -1e-6
    assert float((points + steps).max()) <= 1 + 1e-6
    assert float((normals * steps).sum()) == pytest.approx(float(missing), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_without_a_slope_nothing_moves(norm: Norm) -> None:
    points = torch.rand(2, 1, 4, 4, generator=generator(0))
    steps = way_to_plane(points, torch.zeros_like(points), torch.tensor([0.0, 100.0]), norm)
    assert torch.equal(steps, torch.zeros_like(points))


@pytest.mark.parametrize("norm", NORMS)
def test_large_images(norm: Norm) -> None:
    source = generator(1)
    points = torch.rand(2, 3, 224, 224, generator=source)
    normals = torch.randn(points.shape, generator=source) * 1e-3
    missing = torch.tensor([5.0, -0.01])
    steps = way_to_plane(points, normals, missing, norm)
    gained = (normals * steps).double().flatten(1).sum(1).float()
    torch.testing.assert_close(gained, missing, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("together", [2**20, 100])
def test_nearest_boundary(norm: Norm, together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jernih.attacks.gradients.TOGETHER", together)
    source = generator(2)
    weight = torch.randn(5, 48, generator=source) * torch.arange(1, 6)[:, None]
    images = torch.rand(8, 3, 4, 4, generator=source).requires_grad_(True)
    gaps = nn.functional.linear(images.flatten(1), weight, -weight.sum(1) / 2)
    sizes = torch.linalg.vector_norm(
        weight, ord={"linf": 1, "l2": 2, "l1": float("inf")}[norm], dim=1
    )
    which = (gaps.detach().abs() / sizes).argmin(1)
    normals, gap = nearest_boundary(gaps, images, norm)
    assert len(which.unique()) > 1
    torch.testing.assert_close(normals.flatten(1), weight[which])
    torch.testing.assert_close(gap, gaps.detach().gather(1, which[:, None]).squeeze(1))
