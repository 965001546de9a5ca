from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from jernih.purifiers import Median
from jernih.randomness import generator
from jernih.validate import InputError


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 3, 4, 19)])
def test_against_scipy(size: int, shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=generator("median"))
    expected = ndimage.median_filter(images.numpy(), (1, 1, size, size), mode="mirror")
    np.testing.assert_array_equal(Median(size)(images).numpy(), expected)


def test_single_pixels_vanish() -> None:
    images = torch.full((1, 3, 16, 16), 0.5)
    salted = images.clone()
    salted[..., 3::5, 2::5] = 1
    assert torch.equal(Median()(salted), images)


def test_gradient_goes_to_the_pixel_chosen(images: Tensor) -> None:
    inputs = images.clone().requires_grad_(True)
    weights = torch.rand(images.shape, generator=generator("weights"))
    restored = Median()(inputs)
    (gradient,) = torch.autograd.grad((restored * weights).sum(), inputs)
    expected = torch.zeros_like(images)
    for n, c, y, x in np.ndindex(*images.shape):
        near = images[n, c, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        row, column = (near == restored[n, c, y, x]).nonzero()[0].tolist()
        expected[n, c, max(y - 1, 0) + row, max(x - 1, 0) + column] += weights[n, c, y, x]
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("size", [0, 2, 33, 3.5, "3"])
def test_options(size: Any) -> None:
    with pytest.raises(InputError, match="size"):
        Median(size)


def test_images_too_small(images: Tensor) -> None:
    with pytest.raises(InputError, match="sides of at least 3"):
        Median(5)(images[..., :2])
