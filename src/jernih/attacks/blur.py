"""Gaussian blur as a control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from jernih.attacks.base import ATTACKS, distance
from jernih.attacks.control import Control
from jernih.validate import InputError, check_count, check_number


@ATTACKS.register("blur")
class Blur(Control):
    """The strongest Gaussian blur that the bound allows, image by image: a control, not an attack.

    The standard deviation is found by bisection, which takes it that more blur changes more: the
    image blurred by it stays within the bound everywhere, so that nothing is cut and what comes out
    is a blur and no more. One sharp edge allows little of it, and many images hardly change. At the
    borders the blur averages over the pixels that there are. No randomness. As a corruption that
    classifiers should bear it is in Hendrycks & Dietterich, arXiv:1903.12261.

    Args:
        eps: bound on the change in L∞, on the scale of images in [0, 1].
        largest: the largest standard deviation tried, in pixels, above 0 and at most 1000.
        steps: number of halvings; each blurs all images once.

    Raises:
        InputError: for a standard deviation out of range or fewer steps than one.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3)).eval()
        >>> images = torch.rand(2, 3, 8, 8)
        >>> result = Blur("8/255")(model, images, torch.tensor([0, 1]))
        >>> [round(float(d), 2) for d in result.distances]
        [0.03, 0.03]
    """

    reference: ClassVar[str] = "arXiv:1903.12261"

    def __init__(
        self, eps: float | str = "8/255", *, largest: float = 10.0, steps: int = 12
    ) -> None:
        super().__init__(eps)
        if check_number("largest", largest, 0, 1000) == 0:
            raise InputError("largest", "a number of pixels above 0", largest)
        self.largest = largest
        self.steps = check_count("steps", steps)

    def disturb(
        self, images: Tensor, epsilons: Sequence[float], generator: torch.Generator | None
    ) -> list[Tensor]:
        """Return blurred images for each bound."""
        most = images.new_full((len(images),), self.largest)
        return [blurred(images, self._strongest(images, most, eps)) for eps in epsilons]

    def _strongest(self, images: Tensor, most: Tensor, eps: float) -> Tensor:
        """The largest standard deviations (N,) known to keep the bound."""
        fits = distance(images, blurred(images, most), "linf") <= eps
        low, high = torch.where(fits, most, 0), most
        for _ in range(self.steps):
            middle = (low + high) / 2
            fits = distance(images, blurred(images, middle), "linf") <= eps
            low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
        return low


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image (N, C, H, W) by a standard deviation of its own (N,), in pixels.

    Weights are cut at the borders and scaled to add up to 1.
    """
    height, width = (_weights(sigma, size)[:, None] for size in images.shape[2:])
    return height @ images @ width.transpose(-1, -2)


def _weights(sigma: Tensor, size: int) -> Tensor:
    """Matrices (N, size, size) that blur one axis."""
    place = torch.arange(size, dtype=sigma.dtype, device=sigma.device)
    apart = (place[:, None] - place) / sigma.clamp_min(1e-3).view(-1, 1, 1)
    weights = torch.exp(-(apart**2) / 2)
    return weights / weights.sum(2, keepdim=True)
