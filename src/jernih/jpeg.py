"""What a JPEG file makes of images: for the purifier, the control and the harmless change alike."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jernih.validate import InputError, check_number


def check_quality(quality: int) -> int:
    """Return a quality of Pillow's.

    Raises:
        InputError: for what is no whole number in [1, 100].
    """
    if check_number("quality", quality, 1, 100) % 1:
        raise InputError("quality", "a whole number", quality)
    return int(quality)


def through_jpeg(images: Tensor, quality: int) -> Tensor:
    """Round images to 8 bits, write each as a JPEG file and read it back, without gradient.

    Colour is stored at half the resolution, as Pillow does by default.

    Args:
        images: float32 (N, 3, H, W) in [0, 1].
        quality: Pillow's quality, a whole number in [1, 100].

    Raises:
        InputError: for images without three channels.

    Example:
        >>> through_jpeg(torch.rand(1, 3, 32, 32), 50).shape
        torch.Size([1, 3, 32, 32])
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise InputError("images", "shape (N, 3, H, W)", tuple(images.shape))
    pixels = (images.detach() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    read = torch.from_numpy(np.stack([_through(image, quality) for image in pixels]))
    return read.permute(0, 3, 1, 2).to(images) / 255


def _through(pixels: np.ndarray, quality: int) -> np.ndarray:
    """One 8-bit image (H, W, 3) written and read."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))
