"""The parts of Auto-PGD's runs, each against another way to get at it."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from jernih.attacks.ascent import (
    Ascent,
    SparseAscent,
    project_l1_in_range,
    random_start,
)
from jernih.attacks.base import distance, unit
from jernih.randomness import generator
from jernih.types import Norm

IMAGES = torch.rand(12, 3, 5, 5, generator=generator("images")).mul(1.4).sub(0.2).clamp(0, 1)


def shrunk(image: Tensor, delta: Tensor, cut: float) -> Tensor:
    """All values of ``delta`` shorter by ``cut``, within what leaves the image in range."""
    return (delta.sign() * (delta.abs() - cut).clamp_min(0)).maximum(-image).minimum(1 - image)


@pytest.mark.parametrize("eps", [0.0, 0.3, 4.0, 20.0, 500.0])
@pytest.mark.parametrize("scale", [0.0, 0.02, 1.0, 30.0])
def test_projection_in_l1_by_finding_a_root(eps: float, scale: float) -> None:
    delta = scale * torch.randn(IMAGES.shape, generator=generator("delta"))
    found = project_l1_in_range(IMAGES, delta, eps)
    assert bool((distance(IMAGES, IMAGES + found, "l1") <= eps + 1e-4).all())
    assert -1e-6 <= float((IMAGES + found).min()) <= float((IMAGES + found).max()) <= 1 + 1e-6
    for image, wanted, got in zip(IMAGES.double(), delta.double(), found.double(), strict=True):

        def over(cut: float, image: Tensor = image, wanted: Tensor = wanted) -> float:
            return float(shrunk(image, wanted, cut).abs().sum()) - eps

        cut = 0.0 if over(0.0) <= 0 else brentq(over, 0, float(wanted.abs().max()), xtol=1e-14)
        torch.testing.assert_close(got, shrunk(image, wanted, cut), atol=1e-6, rtol=0)


def test_checkpoints_are_the_published_ones() -> None:
    periods = [22, 19, 16, 13, 10, 7, 6, 6]
    assert list(Ascent.checkpoints(100)) == list(accumulate(periods))
    assert list(Ascent.checkpoints(100).values()) == periods
    assert Ascent.checkpoints(1) == {1: 1}
    assert list(SparseAscent.checkpoints(100)) == list(range(4, 101, 4))


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.7), ("l1", 5.0)])
def test_starts_lie_on_the_surface(norm: Norm, eps: float) -> None:
    images = IMAGES * 0.2 + 0.4
    sizes = distance(images, random_start(images, norm, eps, generator(0)), norm)
    torch.testing.assert_close(sizes, torch.full_like(sizes, eps))
    start = random_start(IMAGES, norm, eps, generator(0))
    assert 0 <= float(start.min()) <= float(start.max()) <= 1
    assert torch.equal(random_start(IMAGES[:5], norm, eps, generator(0)), start[:5])


def test_unit_survives_tiny_gradients() -> None:
    gradient = torch.randn(IMAGES.shape, generator=generator("tiny"))
    expected = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(unit(gradient * 1e-30), expected)
    assert torch.equal(unit(gradient * 0), gradient * 0)
