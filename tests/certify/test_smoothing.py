"""Smoothing, on models whose radius is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm
from torch import Tensor, nn

from jernih.certify import ABSTAINED, Smoothing, largest_radius, least_share
from jernih.classifiers import Classifier
from jernih.defended import Defended
from jernih.purifiers import Identity
from jernih.randomness import generator
from jernih.validate import InputError


class Plane(nn.Module):
    """Two classes on the two sides of a plane: a smoothed half-space is that half-space."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        way = torch.randn(shape, generator=generator("plane"))
        self.normal = way / way.norm()
        self.offset = float((self.normal * 0.5).sum())

    def away(self, images: Tensor) -> Tensor:
        ahead: Tensor = (images * self.normal).sum((1, 2, 3)) - self.offset
        return ahead

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([-self.away(images), self.away(images)], 1)


@pytest.fixture
def plane() -> Plane:
    return Plane((3, 8, 8)).eval()


def at(plane: Plane, distances: list[float]) -> Tensor:
    """Images at such distances from the plane."""
    return torch.stack([0.5 + d * plane.normal for d in distances]).clamp(0, 1)


def test_radius_of_a_plane(plane: Plane) -> None:
    """The share of noise beyond the plane is Φ(d / σ), so the radius is the distance itself."""
    images = at(plane, [0.1, -0.2, 0.3, -0.5])
    known = plane.away(images)
    promised = Smoothing(plane, 0.25, samples=20_000).certify(images, generator=generator(0))
    assert promised.classes.tolist() == [1, 0, 1, 0]
    assert bool((promised.radii < known.abs()).all())
    assert bool((promised.radii > known.abs() - 0.01).all())
    shares = promised.counts.double() / promised.samples
    expected = norm.cdf(known.abs().double().numpy() / 0.25)
    np.testing.assert_allclose(shares.numpy(), expected, atol=0.01)


def test_promises_fail_as_rarely_as_said(plane: Plane) -> None:
    images = at(plane, [0.2]).expand(300, -1, -1, -1)
    promised = Smoothing(plane, 0.25, samples=300, candidates=20, alpha=0.2).certify(
        images, generator=generator(1)
    )
    failed = float((promised.radii > 0.2 + 1e-6).double().mean())
    assert failed == pytest.approx(0.17, abs=0.06)  # at most 0.2; the bound is discrete


def test_abstains_on_the_boundary(plane: Plane) -> None:
    promised = Smoothing(plane, 0.25, samples=500).certify(
        at(plane, [0.0]).expand(20, -1, -1, -1), generator=generator(2)
    )
    assert promised.classes.tolist() == [ABSTAINED] * 20
    assert promised.radii.tolist() == [0.0] * 20


def test_no_image_depends_on_the_others(classifier: Classifier, images: Tensor) -> None:
    smoothing = Smoothing(Defended(classifier, Identity()).eval(), 0.1, samples=200, at_once=30)
    seen: list[tuple[int, int]] = []
    whole = smoothing.certify(
        images, generator=generator(3), progress=lambda *told: seen.append(told)
    )
    assert seen == [(k, 6) for k in range(1, 7)]
    part = smoothing.certify(images[:2], generator=generator(3))
    assert torch.equal(whole.classes[:2], part.classes)
    assert torch.equal(whole.counts[:2], part.counts)
    assert torch.equal(whole.radii[:2], part.radii)


@pytest.mark.parametrize(("count", "samples"), [(1, 10), (57, 100), (9_900, 10_000), (100, 100)])
def test_least_share_is_the_edge_of_a_test(count: int, samples: int) -> None:
    """At the bound, so many or more successes have a chance of α."""
    share = least_share(count, samples, 0.01)
    assert 0 < share < count / samples
    assert binom.sf(count - 1, samples, share) == pytest.approx(0.01, rel=1e-6)


def test_no_successes() -> None:
    assert least_share(0, 100, 0.01) == 0


def test_unanimous_answers_give_the_largest_radius(plane: Plane) -> None:
    promised = Smoothing(plane, 0.01, samples=100).certify(at(plane, [1.0]), generator=generator(4))
    assert float(promised.radii) == pytest.approx(largest_radius(0.01, 100, 0.001))
    assert float(promised.radii) == pytest.approx(0.01 * norm.ppf(0.001**0.01))
    assert math.isnan(largest_radius(0.01, 5, 0.001))


def test_bad_arguments(plane: Plane, images: Tensor) -> None:
    with pytest.raises(InputError, match="evaluation mode"):
        Smoothing(Plane((3, 8, 8)).train(), 0.1)
    for options, name in (
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": float("nan")}, "sigma"),
        ({"sigma": 0.1, "samples": 0}, "samples"),
        ({"sigma": 0.1, "candidates": 0}, "candidates"),
        ({"sigma": 0.1, "alpha": 0.0}, "alpha"),
        ({"sigma": 0.1, "at_once": 0}, "at_once"),
    ):
        with pytest.raises(InputError, match=name):
            Smoothing(plane, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="images"):
        Smoothing(plane, 0.1).certify(images * 2)
