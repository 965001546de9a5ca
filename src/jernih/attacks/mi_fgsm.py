"""Momentum iterative fast gradient sign method."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from jernih.attacks.asking import slope
from jernih.attacks.base import ATTACKS, project
from jernih.attacks.pgd import PGD
from jernih.validate import check_number


@ATTACKS.register("mi-fgsm")
class MIFGSM(PGD):
    r"""Momentum iterative fast gradient sign method (Dong et al., arXiv:1710.06081).

    Steps along the sign of a running sum m of the gradients, each over its mean absolute value so
    that all weigh alike. What the sum keeps of earlier steps makes the perturbation fool other
    models more often:

    .. math::
        m_{t+1} = μ\, m_t + g_t / \mathrm{mean}|g_t|, \qquad
        x_{t+1} = Π_{B(x, ε) ∩ [0,1]} \bigl(x_t + α\, \mathrm{sign}\, m_{t+1}\bigr)

    with g the gradient of the cross-entropy, and its opposite when targeted. (The publication
    divides by the sum of the absolute values; the signs are the same.)

    Args:
        eps: bound on the perturbation, on the scale of images in [0, 1].
        targeted: the labels passed are classes to reach.
        steps: number of steps.
        step_size: α as a share of ε; None for 1 / steps, as published.
        decay: μ, from 0 (no memory) to 1 (all steps weigh alike).
        stop_early: an image stays as it is from the moment that the model is fooled by it; leave it
            off for images meant for other models.

    Raises:
        InputError: for fewer steps than one, a step size that is not above 0 and at most 2.5, or a
            decay outside [0, 1].

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
        >>> images, labels = torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])
        >>> result = MIFGSM("8/255")(model, images, labels)
        >>> [round(float(d), 4) for d in result.distances]
        [0.0314, 0.0314]
    """

    reference: ClassVar[str] = "arXiv:1710.06081"

    def __init__(
        self,
        eps: float | str = "8/255",
        *,
        targeted: bool = False,
        steps: int = 10,
        step_size: float | None = None,
        decay: float = 1.0,
        stop_early: bool = False,
    ) -> None:
        super().__init__(
            eps,
            targeted=targeted,
            steps=steps,
            step_size=step_size,
            random_start=False,
            stop_early=stop_early,
        )
        if step_size is None:
            self.share = 1 / steps
        self.decay = check_number("decay", decay, 0, 1)

    def _climb(
        self, model: nn.Module, images: Tensor, labels: Tensor, start: Tensor, eps: float
    ) -> Tensor:
        """One run from ``start``."""
        attacked = start.detach().clone()
        memory = torch.zeros_like(attacked)
        active = torch.arange(len(images), device=images.device)
        step = (-1 if self.targeted else 1) * self.share * eps
        for _ in range(self.steps):
            gradient, logits = slope(model, attacked[active], labels[active])
            if self.stop_early:
                going = ~self.fooled(logits, labels[active])
                active, gradient = active[going], gradient[going]
            if len(active) == 0:
                break
            size = gradient.abs().mean((1, 2, 3), keepdim=True)
            memory[active] = self.decay * memory[active] + gradient / torch.where(size > 0, size, 1)
            stepped = attacked[active] + step * memory[active].sign()
            origin = images[active]
            attacked[active] = (origin + project(stepped - origin, self.norm, eps)).clamp(0, 1)
        return attacked
