"""JPEG compression as a control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from jernih.attacks.base import ATTACKS
from jernih.attacks.control import Control
from jernih.jpeg import check_quality, through_jpeg


@ATTACKS.register("jpeg-compression")
class JPEGCompression(Control):
    """What a JPEG file loses, cut to the bound: a control, not an attack.

    The images are rounded to 8 bits, written as JPEG files and read back; where a pixel changes by
    more than the bound, mostly along edges, it changes by the bound. No randomness. As a corruption
    that classifiers should bear it is in Hendrycks & Dietterich, arXiv:1903.12261.

    The purifier :class:`~jernih.purifiers.jpeg.JPEG` does the same without a bound, on purpose.

    Args:
        eps: bound on the change in L∞, on the scale of images in [0, 1].
        quality: Pillow's quality, a whole number in [1, 100].

    Raises:
        InputError: for a quality out of range; when called, for images without three channels.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3)).eval()
        >>> images = torch.rand(2, 3, 8, 8)
        >>> result = JPEGCompression("8/255")(model, images, torch.tensor([0, 1]))
        >>> [round(float(d), 4) for d in result.distances]
        [0.0314, 0.0314]
    """

    reference: ClassVar[str] = "arXiv:1903.12261"

    def __init__(self, eps: float | str = "8/255", *, quality: int = 50) -> None:
        super().__init__(eps)
        self.quality = check_quality(quality)

    def disturb(
        self, images: Tensor, epsilons: Sequence[float], generator: torch.Generator | None
    ) -> list[Tensor]:
        """Return compressed images, the same for each bound."""
        read = through_jpeg(images, self.quality)
        return [read for _ in epsilons]
