"""Uniform noise as a control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from jernih.attacks.base import ATTACKS
from jernih.attacks.control import Control
from jernih.attacks.draws import in_ball


@ATTACKS.register("uniform-noise")
class UniformNoise(Control):
    """A uniformly random point of the L∞ ball around the image: a control, not an attack.

    It is where PGD starts from. As a corruption that people bear better than networks it is in
    Geirhos et al., arXiv:1808.08750.

    Args:
        eps: bound on the change in L∞, on the scale of images in [0, 1].

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
        >>> images, labels = torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])
        >>> result = UniformNoise("8/255")(model, images, labels)
        >>> bool((result.distances <= 8 / 255).all())
        True
    """

    reference: ClassVar[str] = "arXiv:1808.08750"

    def disturb(
        self, images: Tensor, epsilons: Sequence[float], generator: torch.Generator | None
    ) -> list[Tensor]:
        """Return noisy images for each bound."""
        noise = in_ball(images, "linf", generator)
        return [images + eps * noise for eps in epsilons]
