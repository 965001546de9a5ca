"""JPEG compression as a purifier."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from jernih.jpeg import check_quality, through_jpeg
from jernih.purifiers.base import PURIFIERS, Purifier, straight_through


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
        >>> import torch
        >>> JPEG(quality=50)(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 3, 32, 32])
    """

    learns: Literal["nothing"] = "nothing"
    reference: ClassVar[str] = "arXiv:1608.00853"

    def __init__(self, quality: int = 75) -> None:
        super().__init__()
        self.quality = check_quality(quality)

    def restore(self, images: Tensor) -> Tensor:
        """Return the images as read back; gradients pass unchanged."""
        return straight_through(lambda seen: through_jpeg(seen, self.quality), images)
