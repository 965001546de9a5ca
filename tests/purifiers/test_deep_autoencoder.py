"""The deep autoencoder's layout and what it trains on."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jernih.purifiers import DeepAutoencoder
from jernih.validate import InputError


@pytest.mark.parametrize("halvings", range(5))
def test_ten_layers_down_and_four_up(halvings: int) -> None:
    strides = [2] * halvings + [1] * (10 - halvings)
    purifier = DeepAutoencoder(widths=(4,) * 9 + (3,), strides=strides)
    down = [m for m in purifier.modules() if isinstance(m, nn.Conv2d)]
    up = [m for m in purifier.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert (len(down), len(up)) == (10, 4)
    assert isinstance(purifier.layers[-1], nn.Sigmoid)
    assert all(a.out_channels == b.in_channels for a, b in pairwise([*down, *up]))
    images = torch.rand(2, 3, 32, 32)
    code = purifier.layers[:20](images)
    assert code.shape == (2, 3, 32 >> halvings, 32 >> halvings)
    assert purifier(images).shape == images.shape


def test_it_trains_on_clean_images_unless_told(images: Tensor) -> None:
    purifier = DeepAutoencoder(widths=(4,) * 10)
    black = torch.zeros_like(images)
    assert purifier.trains_on == "clean"
    assert torch.equal(purifier.loss(black, images), purifier.loss(images, images))
    robust = DeepAutoencoder(widths=(4,) * 10, inputs="attacked")
    assert robust.trains_on == "attacked"
    assert not torch.equal(robust.loss(black, images), robust.loss(images, images))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"widths": (8,) * 9}, "widths"),
        ({"widths": (0,) * 10}, "widths"),
        ({"strides": (2,) * 5 + (1,) * 5}, "strides"),
        ({"strides": (3,) + (1,) * 9}, "strides"),
        ({"inputs": "noisy"}, "inputs"),
    ],
)
def test_refuses_other_layouts(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        DeepAutoencoder(**options)


def test_refuses_odd_sides(images: Tensor) -> None:
    with pytest.raises(InputError, match="multiples of 2"):
        DeepAutoencoder(widths=(4,) * 10, strides=(2,) + (1,) * 9)(images[..., :31])
