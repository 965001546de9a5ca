"""Fast gradient sign method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from jernih.attacks.asking import slope
from jernih.attacks.base import ATTACKS, Attack


@ATTACKS.register("fgsm")
class FGSM(Attack):
    r"""Fast gradient sign method (Goodfellow et al., arXiv:1412.6572).

    One step of size ε along the sign of the gradient of the cross-entropy J:

    .. math:: x' = \mathrm{clip}_{[0,1]}\bigl(x + ε \, \mathrm{sign}\, ∇_x J(f(x), y)\bigr)

    and in the opposite direction, with y the class to reach, when targeted. The sign does not
    depend on ε, so :meth:`sweep` serves any number of bounds with one gradient.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
        >>> images, labels = torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])
        >>> result = FGSM(eps="8/255")(model, images, labels)
        >>> [round(float(d), 4) for d in result.distances]
        [0.0314, 0.0314]
    """

    reference: ClassVar[str] = "arXiv:1412.6572"

    def run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        eps: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return attacked images for one bound."""
        return self.run_sweep(model, images, labels, [eps], generator)[0]

    def run_sweep(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        epsilons: Sequence[float],
        generator: torch.Generator | None,
    ) -> list[Tensor]:
        """Return attacked images for each bound, from one gradient."""
        gradient, _ = slope(model, images, labels)
        direction = -gradient.sign() if self.targeted else gradient.sign()
        return [images + eps * direction for eps in epsilons]
