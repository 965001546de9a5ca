"""JPEG compression against Pillow's, pixel by pixel."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from jernih.attacks import JPEGCompression
from jernih.validate import InputError

LABELS = torch.zeros(6, dtype=torch.int64)


@pytest.mark.parametrize("quality", [10, 90])
def test_is_a_jpeg_cut_to_the_bound(quality: int, images: Tensor) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)).eval()
    free, bound = JPEGCompression(quality=quality).sweep(model, images, LABELS, [1, 0.03])
    for image, whole, cut in zip(images.numpy(), free.images.numpy(), bound.images, strict=True):
        file = io.BytesIO()
        pixels = np.round(image.transpose(1, 2, 0) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        read = np.asarray(Image.open(file)).transpose(2, 0, 1) / np.float32(255)
        np.testing.assert_allclose(whole, read, atol=1e-6)
        wanted = np.clip(read, image - 0.03, image + 0.03)
        np.testing.assert_allclose(cut.numpy(), wanted, atol=1e-6)


def test_refuses_what_is_no_quality_and_no_colour_image() -> None:
    for quality in (0, 101, 50.5):
        with pytest.raises(InputError, match="quality"):
            JPEGCompression(quality=quality)  # type: ignore[arg-type]
    grey = torch.rand(6, 1, 8, 8)
    with pytest.raises(InputError, match=r"shape \(N, 3, H, W\)"):
        JPEGCompression()(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval(), grey, LABELS)
