"""The median of every pixel's neighbourhood."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional

from jernih.purifiers.base import PURIFIERS, Purifier
from jernih.validate import InputError, check_number


@PURIFIERS.register("median")
class Median(Purifier):
    """Replace every pixel by the median of the square around it, channel by channel.

    Beyond the border the image is mirrored about its outermost pixels. The gradient is that of
    the pixel chosen. Memory holds size² copies of the batch. Source: Xu et al. (feature
    squeezing), arXiv:1704.01155.

    Args:
        size: side of the square in pixels, odd, at most 31.

    Raises:
        InputError: for an even size or one out of range; when called, for sides of no more than
            half the square.

    Example:
        >>> import torch
        >>> Median(size=5)(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 3, 32, 32])
    """

    learns: Literal["nothing"] = "nothing"
    reference: ClassVar[str] = "arXiv:1704.01155"

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        if check_number("size", size, 1, 31) % 2 != 1:
            raise InputError("size", "an odd number", size)
        self.size = int(size)

    def restore(self, images: Tensor) -> Tensor:
        """Return the filtered images."""
        margin = self.size // 2
        if min(images.shape[-2:]) <= margin:
            raise InputError("images", f"sides of at least {margin + 1}", tuple(images.shape))
        padded = functional.pad(images, (margin,) * 4, mode="reflect")
        squares = padded.unfold(2, self.size, 1).unfold(3, self.size, 1)
        return squares.flatten(-2).median(dim=-1).values
