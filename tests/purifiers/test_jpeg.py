from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from jernih.purifiers import JPEG
from jernih.randomness import generator
from jernih.validate import InputError

LUMINANCE = """
16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112
100 103 99"""
"""The example table of the standard (ITU-T T.81, table K.1) that encoders scale by quality."""


@pytest.mark.parametrize("quality", [30, 75])
def test_grey_against_the_standard(images: Tensor, quality: int) -> None:
    grey = functional.avg_pool2d(images, 3, 1, 1)[:, :1].mul(255).round()
    restored = JPEG(quality)((grey / 255).expand(-1, 3, -1, -1)).numpy() * 255
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = np.array(LUMINANCE.split(), dtype=float).reshape(8, 8)
    steps = np.floor((steps * scale + 50) / 100).clip(1, 255)
    blocks = grey.numpy().astype(float).reshape(6, 4, 8, 4, 8).transpose(0, 1, 3, 2, 4) - 128
    codes = np.rint(scipy.fft.dctn(blocks, axes=(-2, -1), norm="ortho") / steps)
    decoded = scipy.fft.idctn(codes * steps, axes=(-2, -1), norm="ortho") + 128
    expected = np.rint(decoded.transpose(0, 1, 3, 2, 4).reshape(6, 1, 32, 32)).clip(0, 255)
    # The library computes in integers, so a code on the verge may be rounded the other way.
    assert np.abs(restored - expected).mean() < 0.1 * np.abs(restored - grey.numpy()).mean()


@pytest.mark.parametrize("size", [(32, 32), (17, 40), (1, 1)])
def test_colour_against_files(size: tuple[int, int], tmp_path: Path) -> None:
    images = torch.rand(2, 3, *size, generator=generator("jpeg"))
    restored = JPEG(quality=60)(images)
    for image, result in zip(images, restored, strict=True):
        pixels = np.rint(image.numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "image.jpg", quality=60)
        read = np.asarray(Image.open(tmp_path / "image.jpg"), dtype=np.float32) / 255
        np.testing.assert_allclose(result.numpy(), read.transpose(2, 0, 1), atol=1e-6)


def test_quality_orders_the_error(images: Tensor) -> None:
    errors = [float((JPEG(q)(images) - images).square().mean()) for q in (5, 30, 75, 100)]
    assert errors == sorted(errors, reverse=True)
    flat = torch.full_like(images, 100 / 255)
    torch.testing.assert_close(JPEG(100)(flat), flat)


def test_gradients_pass_unchanged(images: Tensor) -> None:
    inputs = images.clone().requires_grad_(True)
    weights = torch.rand(images.shape, generator=generator("weights"))
    (gradient,) = torch.autograd.grad((JPEG()(inputs) * weights).sum(), inputs)
    assert torch.equal(gradient, weights)


@pytest.mark.parametrize("quality", [0, 101, 75.5, "high"])
def test_options(quality: Any) -> None:
    with pytest.raises(InputError, match="quality"):
        JPEG(quality)


def test_grey_images_are_refused(images: Tensor) -> None:
    with pytest.raises(InputError, match=r"\(N, 3, H, W\)"):
        JPEG()(images[:, :1])
