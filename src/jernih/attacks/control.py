"""What controls share: changes of the image that ask the model nothing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from jernih.attacks.base import Attack
from jernih.types import Needs


class Control(Attack):
    """A change of the image that is not an attack, for comparison with attacks of the same bound.

    Noise, blur and compression happen to every image on its way. A model that errs on them errs
    without an attacker; a purifier that only helps against them, or a detector that raises an alarm
    on them as readily as on an attack, has not told attacks from wear. So whatever is said of an
    attack at a bound had better be said of the controls at that bound, too.

    A control never evaluates the model (the base does, once, for the outcome), so it is the same
    for every model, has no targeted form, and depends on the image, the bound and the generator
    alone. The base cuts what it returns to the bound in L∞, pixel by pixel, and to [0, 1]. All
    bounds of a :meth:`sweep` share the random numbers, so that each gives what it would give alone.

    A subclass writes :meth:`disturb`.

    Args:
        eps: bound on the change in L∞, on the scale of images in [0, 1].
    """

    needs: ClassVar[Needs] = "nothing"

    def __init__(self, eps: float | str = "8/255") -> None:
        super().__init__(eps)

    @abstractmethod
    def disturb(
        self, images: Tensor, epsilons: Sequence[float], generator: torch.Generator | None
    ) -> list[Tensor]:
        """Return disturbed images for each bound; the base cuts them to it."""

    def run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        eps: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return disturbed images for one bound."""
        return self.disturb(images.detach(), [eps], generator)[0]

    def run_sweep(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        epsilons: Sequence[float],
        generator: torch.Generator | None,
    ) -> list[Tensor]:
        """Return disturbed images for each bound, from the same random numbers."""
        return self.disturb(images.detach(), epsilons, generator)
