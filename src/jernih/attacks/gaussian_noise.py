"""Gaussian noise as a control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from jernih.attacks.base import ATTACKS
from jernih.attacks.control import Control
from jernih.attacks.draws import normal
from jernih.validate import InputError, check_number


@ATTACKS.register("gaussian-noise")
class GaussianNoise(Control):
    """Gaussian noise, independent for each pixel and channel: a control, not an attack.

    Values beyond the bound are cut to it; with the default, one in twenty. As a corruption that
    classifiers should bear it is in Hendrycks & Dietterich, arXiv:1903.12261.

    Args:
        eps: bound on the change in L∞, on the scale of images in [0, 1].
        std: standard deviation before the cut, as a share of ε, above 0 and at most 10.

    Raises:
        InputError: for a standard deviation out of range.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
        >>> images, labels = torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])
        >>> result = GaussianNoise("8/255", std=10)(model, images, labels)
        >>> [round(float(d), 4) for d in result.distances]
        [0.0314, 0.0314]
    """

    reference: ClassVar[str] = "arXiv:1903.12261"

    def __init__(self, eps: float | str = "8/255", *, std: float = 0.5) -> None:
        super().__init__(eps)
        if check_number("std", std, 0, 10) == 0:
            raise InputError("std", "a share of eps above 0", std)
        self.std = std

    def disturb(
        self, images: Tensor, epsilons: Sequence[float], generator: torch.Generator | None
    ) -> list[Tensor]:
        """Return noisy images for each bound."""
        noise = normal(images, generator)
        return [images + eps * self.std * noise for eps in epsilons]
