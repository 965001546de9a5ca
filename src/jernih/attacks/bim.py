"""Basic iterative method."""

from __future__ import annotations

from typing import ClassVar

from jernih.attacks.base import ATTACKS
from jernih.attacks.pgd import PGD


@ATTACKS.register("bim")
class BIM(PGD):
    r"""Basic iterative method, also I-FGSM (Kurakin et al., arXiv:1607.02533).

    FGSM in small steps from the image itself, each followed by a projection onto the ball around
    the image and onto [0, 1]:

    .. math:: x_{t+1} = Π_{B(x, ε) ∩ [0,1]} \bigl(x_t + α\, \mathrm{sign}\, ∇ J(f(x_t), y)\bigr)

    There is no randomness in it: it is :class:`~jernih.attacks.pgd.PGD` in L∞ without the random
    start and with few steps.

    Args:
        eps: bound on the perturbation, on the scale of images in [0, 1].
        targeted: the labels passed are classes to reach.
        steps: number of steps.
        step_size: α as a share of ε; None for 2.5 / steps. The publication takes 1/255.
        stop_early: an image stays as it is from the moment that the model is fooled by it.

    Raises:
        InputError: for fewer steps than one or a step size that is not above 0 and at most 2.5.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
        >>> images, labels = torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])
        >>> result = BIM("8/255")(model, images, labels)
        >>> [round(float(d), 4) for d in result.distances]
        [0.0314, 0.0314]
    """

    reference: ClassVar[str] = "arXiv:1607.02533"

    def __init__(
        self,
        eps: float | str = "8/255",
        *,
        targeted: bool = False,
        steps: int = 10,
        step_size: float | None = None,
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
