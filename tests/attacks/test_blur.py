"""Blur against SciPy's, and how near it comes to the bound."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from jernih.attacks import Blur
from jernih.attacks.blur import blurred
from jernih.randomness import generator
from jernih.validate import InputError

SIZE = (24, 31)
MODEL = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE[0] * SIZE[1], 2)).eval()


@pytest.fixture
def pictures() -> Tensor:
    """Noise, a soft ramp, one sharp edge, and a flat image."""
    noise = torch.rand(3, *SIZE, generator=generator("pictures"))
    ramp = torch.linspace(0, 1, SIZE[1]).square().expand(3, *SIZE)
    edge = torch.zeros(3, *SIZE)
    edge[..., 15:] = 1
    return torch.stack([noise, ramp, edge, torch.full((3, *SIZE), 0.3)])


def test_against_scipy(pictures: Tensor) -> None:
    sigmas = [0.4, 1.3, 3.0, 8.0]
    found = blurred(pictures, torch.tensor(sigmas)).numpy()
    for picture, sigma, ours in zip(pictures.numpy(), sigmas, found, strict=True):

        def smooth(values: np.ndarray, sigma: float = sigma) -> np.ndarray:
            smoothed: np.ndarray = gaussian_filter(
                values.astype(np.float64), sigma, mode="constant", truncate=40
            )
            return smoothed

        weight = smooth(np.ones(SIZE))
        for channel, blurry in zip(picture, ours, strict=True):
            np.testing.assert_allclose(blurry, smooth(channel) / weight, atol=2e-6)


def test_comes_as_near_to_the_bound_as_it_can(pictures: Tensor) -> None:
    labels = torch.zeros(4, dtype=torch.int64)
    for eps in (0.01, 8 / 255, 0.15):
        attack = Blur(eps, steps=16)
        result = attack(MODEL, pictures, labels)
        assert bool((result.distances <= eps + 1e-6).all())
        assert bool((result.distances[:3] > 0.99 * eps).all())
        assert float(result.distances[3]) < 1e-6
        # It is a blur and nothing else: some standard deviation gives it, a larger one too much.
        sigma = attack._strongest(pictures, torch.full((4,), 10.0), eps)
        torch.testing.assert_close(result.images, blurred(pictures, sigma), atol=1e-6, rtol=0)
        more = (blurred(pictures, sigma + 1e-3) - pictures).flatten(1).abs().amax(1)
        assert bool((more[:3] > eps).all())


def test_no_more_than_the_largest(pictures: Tensor) -> None:
    labels = torch.zeros(4, dtype=torch.int64)
    result = Blur(1, largest=0.7)(MODEL, pictures, labels)
    wanted = blurred(pictures, torch.full((4,), 0.7))
    torch.testing.assert_close(result.images, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("options", [{"largest": 0}, {"largest": -1}, {"steps": 0}, {"steps": 1.5}])
def test_refuses_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        Blur(**options)  # type: ignore[arg-type]
