"""The robust purifier: it sees means of squares and nothing else, and any size will do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from jernih.purifiers import JernihR
from jernih.randomness import generator, seeded
from jernih.validate import InputError


def trained() -> JernihR:
    """Weights no longer those of the start, and batch norms that have seen something."""
    with seeded("jernih-r"):
        purifier = JernihR(factor=2, widths=(8, 16))
        for parameter in purifier.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        purifier(torch.rand(8, 3, 24, 24))
    return purifier.eval()


def images(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, generator=generator("jernih-r", height, width))


def test_untrained_gives_the_means_interpolated() -> None:
    shown = images(32, 64)
    means = shown.reshape(2, 3, 8, 4, 16, 4).mean((3, 5))
    expected = functional.interpolate(means, size=(32, 64), mode="bilinear")
    torch.testing.assert_close(JernihR().eval()(shown), expected)


@pytest.mark.parametrize("size", [(32, 32), (30, 45), (1, 1), (7, 224), (8, 8)])
@torch.no_grad()
def test_any_size(size: tuple[int, int]) -> None:
    restored = trained()(images(*size))
    assert restored.shape == (2, 3, *size)
    assert bool(restored.isfinite().all())


@torch.no_grad()
def test_what_leaves_the_means_alone_is_not_seen() -> None:
    """A checkerboard of squares' own size is gone, whatever its strength."""
    purifier, shown = trained(), 0.3 + 0.4 * images(16, 16)
    signs = torch.tensor([1.0, -1.0]).repeat(8)
    board = 0.2 * signs[:, None] * signs[None, :]
    assert float((purifier(shown + board) - purifier(shown)).abs().max()) < 1e-6
    assert float((purifier(shown + 0.02) - purifier(shown)).abs().max()) > 1e-3


def test_features_are_of_the_whole_image() -> None:
    purifier, shown = trained(), images(32, 48).requires_grad_(True)
    features = purifier.features(shown)
    assert features.shape == (2, purifier.feature_count) == (2, 16)
    (slope,) = torch.autograd.grad(features.square().sum(), shown)
    assert float((slope.abs().sum(1) > 0).float().mean()) == 1
    assert JernihR().feature_count == 128


@torch.no_grad()
def test_what_the_image_shows_as_a_whole_steers_every_stage() -> None:
    purifier = JernihR(factor=2, widths=(4, 8, 16))
    purifier.leave.weight.normal_(generator=generator("leave"))
    purifier.eval()
    shown = images(16, 16)
    before = purifier(shown)
    start = 0
    for width in (8, 4):  # scale and shift of each stage, from the coarsest on
        for part in range(2):
            first = start + part * width
            purifier.steer.bias.zero_()[first : first + width] = 0.5
            assert float((purifier(shown) - before).abs().max()) > 1e-3
        start += 2 * width
    assert start == len(purifier.steer.bias)


def test_bad_options() -> None:
    for widths in ((8,), (8, 0)):
        with pytest.raises(InputError, match="widths"):
            JernihR(widths=widths)
    with pytest.raises(InputError, match="factor"):
        JernihR(factor=0)
    with pytest.raises(NotImplementedError, match="no features"):
        super(JernihR, JernihR()).features(images(8, 8))
