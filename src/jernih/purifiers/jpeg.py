"""JPEG compression as a purifier."""

from __future__ import annotations

import io
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jernih.purifiers.base import PURIFIERS, Purifier, straight_through
from jernih.validate import InputError, check_number


@PURIFIERS.register("jpeg")
class JPEG(Purifier):
    """Round each image to 8 bits, compress it as a JPEG file and read it back.

    Colour is stored at half the resolution, as Pillow does by default. Source: Dziugaite et al.,
    arXiv:1608.00853.

    Args:
        quality: Pillow's quality, a whole number in [1, 100].

    Raises:
        InputError: for a quality out of range; when called, for images without three channels.

    Example:
        >>> JPEG(quality=50)(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 3, 32, 32])
    """

    learns: Literal["nothing"] = "nothing"
    reference: ClassVar[str] = "arXiv:1608.00853"

    def __init__(self, quality: int = 75) -> None:
        super().__init__()
        if check_number("quality", quality, 1, 100) % 1:
            raise InputError("quality", "a whole number", quality)
        self.quality = int(quality)

    def restore(self, images: Tensor) -> Tensor:
        """Return the images as read back; gradients pass unchanged."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise InputError("images", "shape (N, 3, H, W)", tuple(images.shape))
        return straight_through(self._compressed, images)

    def _compressed(self, images: Tensor) -> Tensor:
        pixels = (images.detach() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        read = torch.from_numpy(np.stack([self._round_trip(image) for image in pixels]))
        return read.permute(0, 3, 1, 2).to(images) / 255

    def _round_trip(self, pixels: np.ndarray) -> np.ndarray:
        """One 8-bit image (H, W, 3) written and read."""
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=self.quality)
        return np.asarray(Image.open(file))
