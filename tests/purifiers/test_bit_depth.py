from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from jernih.purifiers import BitDepth
from jernih.randomness import generator
from jernih.validate import InputError


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_the_nearest_of_the_levels(images: Tensor, bits: int) -> None:
    restored = BitDepth(bits)(images).numpy()
    levels = np.linspace(0, 1, 2**bits, dtype=np.float32)
    nearest = levels[np.abs(images.numpy()[..., None] - levels).argmin(-1)]
    np.testing.assert_allclose(restored, nearest, atol=1e-6)
    assert len(np.unique(restored)) == 2**bits


def test_levels_stay() -> None:
    images = torch.arange(256).div(255).reshape(1, 1, 16, 16)
    torch.testing.assert_close(BitDepth(8)(images), images)
    once = BitDepth()(images)
    assert torch.equal(BitDepth()(once), once)


def test_gradients_pass_unchanged(images: Tensor) -> None:
    inputs = images.clone().requires_grad_(True)
    weights = torch.rand(images.shape, generator=generator("weights"))
    (gradient,) = torch.autograd.grad((BitDepth()(inputs) * weights).sum(), inputs)
    assert torch.equal(gradient, weights)


@pytest.mark.parametrize("bits", [0, 17, 2.5, "3"])
def test_options(bits: Any) -> None:
    with pytest.raises(InputError, match="bits"):
        BitDepth(bits)
