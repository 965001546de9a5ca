"""Fewer grey levels."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from jernih.purifiers.base import PURIFIERS, Purifier, straight_through
from jernih.validate import InputError, check_number


@PURIFIERS.register("bit-depth")
class BitDepth(Purifier):
    """Round every channel to the nearest of 2 to the power of ``bits`` evenly spaced levels.

    Source: Xu et al. (feature squeezing), arXiv:1704.01155.

    Args:
        bits: bits per channel, a whole number in [1, 16].

    Raises:
        InputError: for bits out of range.

    Example:
        >>> import torch
        >>> BitDepth(bits=1)(torch.tensor([0.2, 0.7]).reshape(1, 1, 1, 2)).flatten()
        tensor([0., 1.])
    """

    learns: Literal["nothing"] = "nothing"
    reference: ClassVar[str] = "arXiv:1704.01155"

    def __init__(self, bits: int = 3) -> None:
        super().__init__()
        if check_number("bits", bits, 1, 16) % 1:
            raise InputError("bits", "a whole number", bits)
        self.highest: int = 2 ** int(bits) - 1

    def restore(self, images: Tensor) -> Tensor:
        """Return the rounded images; gradients pass unchanged."""
        return straight_through(self._rounded, images)

    def _rounded(self, images: Tensor) -> Tensor:
        return (images * self.highest).round() / self.highest
