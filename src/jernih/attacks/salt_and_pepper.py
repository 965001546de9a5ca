"""Salt-and-pepper noise as a control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from jernih.attacks.base import ATTACKS
from jernih.attacks.control import Control
from jernih.attacks.draws import source
from jernih.validate import InputError, check_number


@ATTACKS.register("salt-and-pepper")
class SaltAndPepper(Control):
    """Some pixels towards white, as many towards black: a control, not an attack.

    The pixels, drawn at random, change in all channels alike, as far as the bound lets them: by ε
    where the range leaves room for it. As a corruption that people bear better than networks it is
    in Geirhos et al., arXiv:1808.08750.

    Args:
        eps: bound on the change in L∞, on the scale of images in [0, 1].
        amount: the share of pixels that change, half of them either way, above 0 and at most 1.

    Raises:
        InputError: for an amount out of range.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
        >>> images, labels = torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])
        >>> result = SaltAndPepper("8/255", amount=1)(model, images, labels)
        >>> [round(float(d), 4) for d in result.distances]
        [0.0314, 0.0314]
    """

    reference: ClassVar[str] = "arXiv:1808.08750"

    def __init__(self, eps: float | str = "8/255", *, amount: float = 0.1) -> None:
        super().__init__(eps)
        if check_number("amount", amount, 0, 1) == 0:
            raise InputError("amount", "a share of pixels above 0", amount)
        self.amount = amount

    def disturb(
        self, images: Tensor, epsilons: Sequence[float], generator: torch.Generator | None
    ) -> list[Tensor]:
        """Return images with some pixels black or white, the same for each bound."""
        shape = (len(images), 1, *images.shape[2:])
        drawn = torch.rand(shape, generator=source(generator)).to(images.device)
        peppered = images.masked_fill(drawn < self.amount / 2, 0)
        salted = peppered.masked_fill(drawn >= 1 - self.amount / 2, 1)
        return [salted for _ in epsilons]
