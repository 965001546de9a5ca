"""Fast gradient sign method after a random step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from jernih.attacks.asking import slope
from jernih.attacks.base import ATTACKS, Attack
from jernih.attacks.draws import source
from jernih.validate import InputError, check_number


@ATTACKS.register("r-fgsm")
class RFGSM(Attack):
    r"""Fast gradient sign method after a random step, R+FGSM (Tramèr et al., arXiv:1705.07204).

    A step of size α along random signs s, then one along the sign of the gradient that spends the
    rest of the bound. It was made against models whose gradient at the image itself misleads:

    .. math::
        x' = \mathrm{clip}_{[0,1]}(x + α\, s), \qquad
        x'' = \mathrm{clip}_{[0,1]}\bigl(x' + (ε - α)\, \mathrm{sign}\, ∇ J(f(x'), y)\bigr)

    Bounds of one :meth:`sweep` share the signs s, so that each gives what it would give alone.

    Args:
        eps: bound on the perturbation, on the scale of images in [0, 1].
        targeted: the labels passed are classes to reach.
        random_share: α as a share of ε, from 0 (FGSM) up to, but not, 1.

    Raises:
        InputError: for a share outside [0, 1).

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
        >>> images, labels = torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])
        >>> result = RFGSM("8/255")(model, images, labels, generator=torch.Generator())
        >>> [round(float(d), 4) for d in result.distances]
        [0.0314, 0.0314]
    """

    reference: ClassVar[str] = "arXiv:1705.07204"

    def __init__(
        self, eps: float | str = "8/255", *, targeted: bool = False, random_share: float = 0.5
    ) -> None:
        super().__init__(eps, targeted=targeted)
        if check_number("random_share", random_share, 0, 1) == 1:
            raise InputError("random_share", "a share of eps below 1", random_share)
        self.random_share = random_share

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
        """Return attacked images for each bound, from the same random signs."""
        signs = torch.randint(0, 2, images.shape, generator=source(generator)).to(images) * 2 - 1
        made = []
        for eps in epsilons:
            near = (images + self.random_share * eps * signs).clamp(0, 1)
            gradient, _ = slope(model, near, labels)
            step = (-1 if self.targeted else 1) * (1 - self.random_share) * eps
            made.append(near + step * gradient.sign())
        return made
