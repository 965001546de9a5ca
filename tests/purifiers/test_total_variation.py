from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor

from jernih.purifiers import TotalVariation
from jernih.randomness import generator
from jernih.validate import InputError


def objective(images: Tensor, given: Tensor, weight: float, smoothing: float = 0.0) -> Tensor:
    """What the purifier minimises, from its definition."""
    down = torch.nn.functional.pad(images.diff(dim=-2), (0, 0, 0, 1))
    across = torch.nn.functional.pad(images.diff(dim=-1), (0, 1))
    variation = (down.square() + across.square() + smoothing).sqrt().sum()
    return (images - given).square().sum() / 2 + weight * variation


def test_a_step_against_its_exact_solution() -> None:
    """Each side of a step moves towards the other by the weight over its width."""
    step = torch.zeros(1, 3, 5, 10)
    step[..., 4:] = 1
    restored = TotalVariation(weight=0.12, tolerance=0)(step)
    expected = torch.tensor([0.12 / 4] * 4 + [1 - 0.12 / 6] * 6).expand(1, 3, 5, 10)
    torch.testing.assert_close(restored, expected, atol=2e-3, rtol=0)


def test_against_a_general_minimiser() -> None:
    given = torch.rand(1, 1, 8, 8, generator=generator("tv"), dtype=torch.float64)

    def value_and_slope(flat: Any) -> tuple[float, Any]:
        at = torch.from_numpy(flat).reshape(given.shape).requires_grad_(True)
        value = objective(at, given, 0.1, smoothing=1e-8)
        return float(value.detach()), torch.autograd.grad(value, at)[0].numpy().ravel()

    found = optimize.minimize(
        value_and_slope,
        given.numpy().ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 10000, "ftol": 1e-14, "gtol": 1e-8},
    )
    restored = TotalVariation(weight=0.1, tolerance=0).restore(given)
    np.testing.assert_allclose(restored.numpy().ravel(), found.x, atol=5e-3)


def test_defaults_lower_the_objective(images: Tensor) -> None:
    restored = TotalVariation()(images)
    assert objective(restored, images, 0.05) < 0.9 * objective(images, images, 0.05)
    torch.testing.assert_close(restored.mean((2, 3)), images.mean((2, 3)))
    flat = torch.full_like(images, 0.3)
    torch.testing.assert_close(TotalVariation()(flat), flat)


def test_images_and_channels_do_not_mix(images: Tensor) -> None:
    whole = TotalVariation()(images)
    assert torch.equal(TotalVariation()(images[1:2]), whole[1:2])
    assert torch.equal(TotalVariation()(images[:, 2:]), whole[:, 2:])
    assert TotalVariation()(images[..., :1, :]).shape == (6, 3, 1, 32)


def test_gradients_pass_unchanged(images: Tensor) -> None:
    inputs = images.clone().requires_grad_(True)
    weights = torch.rand(images.shape, generator=generator("weights"))
    (gradient,) = torch.autograd.grad((TotalVariation()(inputs) * weights).sum(), inputs)
    assert torch.equal(gradient, weights)


@pytest.mark.parametrize(
    "options", [{"weight": 0}, {"weight": "much"}, {"tolerance": -1}, {"weight": float("nan")}]
)
def test_options(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        TotalVariation(**options)
