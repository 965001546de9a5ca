from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import pywt
import torch
from torch import Tensor

from jernih.purifiers import Wavelet
from jernih.randomness import generator
from jernih.validate import InputError


def haar(size: int, levels: int) -> Any:
    """The orthonormal Haar transform of one side, from its definition."""
    transform = np.eye(size)
    for level in range(levels):
        length = size >> level
        step = np.eye(size)
        step[:length] = 0
        for row in range(length // 2):
            step[row, 2 * row : 2 * row + 2] = np.sqrt(0.5)
            step[length // 2 + row, 2 * row : 2 * row + 2] = np.sqrt([0.5, 0.5]) * [1, -1]
        transform = step @ transform
    return transform


def test_against_haar_from_its_definition(images: Tensor) -> None:
    restored = Wavelet("haar", levels=1, keep=0.2).restore(images).numpy()
    transform = haar(32, 1)
    coefficients = transform @ images.numpy() @ transform.T
    flat = coefficients.reshape(6, 3, -1)
    for image, channel in np.ndindex(6, 3):
        small = np.argsort(-np.abs(flat[image, channel]))[round(0.2 * 1024) :]
        flat[image, channel, small] = 0
    expected = transform.T @ coefficients @ transform
    np.testing.assert_allclose(restored, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (14, 90)])
@pytest.mark.parametrize("wavelet", ["sym4", "haar", "db2", "bior2.2"])
def test_all_coefficients_change_nothing(size: tuple[int, int], wavelet: str) -> None:
    images = torch.rand(2, 3, *size, generator=generator("wavelet"))
    restored = Wavelet(wavelet, keep=1.0)(images)
    torch.testing.assert_close(restored, images, atol=1e-5, rtol=0)


def test_sparse_images_come_back() -> None:
    """Images made of 20 coefficients of 4096 survive keeping 1%, not keeping 0.1%."""
    random = np.random.default_rng(0)
    values = np.zeros((2, 3, 64, 64), dtype=np.float32)
    shape = pywt.wavedec2(values, "sym4", mode="periodization", level=3)
    _, places = pywt.coeffs_to_array(shape, axes=(-2, -1))
    for image, channel in np.ndindex(2, 3):
        chosen = random.choice(4096, 20, replace=False)
        values[image, channel].flat[chosen] = random.choice([-1, 1], 20) * random.uniform(0.2, 1)
    parts = pywt.array_to_coeffs(values, places, output_format="wavedec2")
    made = torch.from_numpy(pywt.waverec2(parts, "sym4", mode="periodization"))
    # The constant 0.5 has 64 equal coefficients at the coarsest level.
    images = 0.5 + made / 4
    restored = Wavelet(levels=3, keep=(64 + 20) / 4096).restore(images)
    torch.testing.assert_close(restored, images, atol=1e-5, rtol=0)
    fewer = Wavelet(levels=3, keep=64 / 4096).restore(images)
    assert float((fewer - images).abs().max()) > 0.01


def test_the_energy_dropped_is_that_of_the_small_coefficients(images: Tensor) -> None:
    flat = pywt.coeffs_to_array(
        pywt.wavedec2(images.numpy(), "sym4", mode="periodization", level=2), axes=(-2, -1)
    )[0].reshape(6, 3, -1)
    small = np.sort(np.abs(flat), axis=-1)[..., : 1024 - 51]
    lost = (images - Wavelet().restore(images)).square().sum((2, 3))
    np.testing.assert_allclose(lost.numpy(), (small**2).sum(-1), rtol=1e-3)


def test_noise_on_a_smooth_image_is_removed() -> None:
    ramp = torch.linspace(0.2, 0.8, 64)
    clean = (0.5 + 0.3 * torch.sin(6 * ramp)[:, None] * torch.cos(6 * ramp)).expand(1, 3, 64, 64)
    signs = torch.randint(0, 2, clean.shape, generator=generator("signs")) * 2 - 1
    noisy = (clean + 8 / 255 * signs).clamp(0, 1)
    restored = Wavelet()(noisy)
    assert (restored - clean).square().mean() < 0.5 * (noisy - clean).square().mean()


def test_levels_are_no_more_than_the_image_allows(images: Tensor) -> None:
    assert torch.equal(Wavelet(levels=9)(images), Wavelet()(images))
    assert torch.equal(Wavelet(levels=2)(images), Wavelet()(images))
    assert not torch.equal(Wavelet(levels=1)(images), Wavelet()(images))


def test_gradients_pass_unchanged(images: Tensor) -> None:
    inputs = images.clone().requires_grad_(True)
    weights = torch.rand(images.shape, generator=generator("weights"))
    (gradient,) = torch.autograd.grad((Wavelet()(inputs) * weights).sum(), inputs)
    assert torch.equal(gradient, weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wavelet": "sym44"}, "nearest: 'sym"),
        ({"wavelet": "morl"}, "wavelet"),
        ({"levels": 0}, "levels"),
        ({"levels": 1.5}, "whole"),
        ({"keep": 0}, "keep"),
        ({"keep": 1.1}, "keep"),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Wavelet(**options)


def test_images_too_small(images: Tensor) -> None:
    assert Wavelet()(images[..., :14, :]).shape == (6, 3, 14, 32)
    with pytest.raises(InputError, match="sides of at least 14 for sym4"):
        Wavelet()(images[..., :13, :])
