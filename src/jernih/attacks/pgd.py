"""Projected gradient descent."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from jernih.attacks.asking import ask, slope
from jernih.attacks.base import ATTACKS, Attack, project, unit
from jernih.attacks.draws import in_ball
from jernih.types import Norm
from jernih.validate import InputError, check_choice, check_count, check_number

BOUNDS: dict[Norm, float | str] = {"linf": "8/255", "l2": 0.5, "l1": 12.0}
"""The bound in each norm where none is given: those usual for CIFAR-10."""


@ATTACKS.register("pgd")
class PGD(Attack):
    r"""Projected gradient descent in L∞, L2 or L1 (Madry et al., arXiv:1706.06083).

    From a random point of the ball B around the image, many small steps along a direction d that
    the gradient g of the cross-entropy gives, each followed by a projection onto the ball, then
    onto [0, 1]:

    .. math:: x_{t+1} = Π_{[0,1]} Π_{B(x, ε)} \bigl(x_t + α\, d(g)\bigr)

    In L∞ d is the sign of g, in L2 g over its length. In L1 it is the sparse direction of Tramèr &
    Boneh (SLIDE, arXiv:1904.13000): the signs of the largest values of g, over their number,
    leaving out pixels that are at 0 or 1 already and would leave the range.

    Args:
        eps: bound on the perturbation, on the scale of images in [0, 1]; None for 8/255 in L∞,
            0.5 in L2 and 12 in L1, as is usual for CIFAR-10. In L2 and L1 larger images want
            larger bounds.
        norm: the norm of the bound and of the steps, ``"linf"``, ``"l2"`` or ``"l1"``.
        targeted: the labels passed are classes to reach.
        steps: number of steps in each run.
        step_size: α as a share of ε; None for 2.5 / steps.
        random_start: start at a uniformly random point of the ball instead of the image.
        restarts: number of runs; later ones work on the images not yet fooled.
        stop_early: an image stays as it is from the moment that the model is fooled by it. The
            share of fooled images can only grow by that, and weak models are attacked much faster;
            switch it off to compare with other implementations.
        sparsity: the share of the gradient's values that a step in L1 leaves aside, in [0, 1];
            at 1 only the largest is left. Other norms make no use of it.

    Raises:
        InputError: for an unknown norm, counts below one, a step size that is not above 0 and at
            most 2.5, or a sparsity outside [0, 1].

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
        >>> images, labels = torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])
        >>> result = PGD("8/255", steps=5, random_start=False, stop_early=False)(
        ...     model, images, labels
        ... )
        >>> [round(float(d), 4) for d in result.distances]
        [0.0314, 0.0314]
    """

    reference: ClassVar[str] = "arXiv:1706.06083"

    def __init__(
        self,
        eps: float | str | None = None,
        *,
        norm: Norm = "linf",
        targeted: bool = False,
        steps: int = 40,
        step_size: float | None = None,
        random_start: bool = True,
        restarts: int = 1,
        stop_early: bool = True,
        sparsity: float = 0.99,
    ) -> None:
        check_choice("norm", norm, tuple(BOUNDS))
        self.norm = norm
        if eps is None:
            eps = self.options["eps"] = BOUNDS[norm]
        super().__init__(eps, targeted=targeted)
        self.steps = check_count("steps", steps)
        self.restarts = check_count("restarts", restarts)
        share = 2.5 / steps if step_size is None else step_size
        if check_number("step_size", share, 0, 2.5) == 0:
            raise InputError("step_size", "a share of eps above 0", share)
        self.share = share
        self.random_start = random_start
        self.stop_early = stop_early
        self.sparsity = check_number("sparsity", sparsity, 0, 1)

    def run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        eps: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return attacked images for one bound."""
        best = images.detach().clone()
        left = torch.arange(len(images), device=images.device)
        for number in range(self.restarts):
            start = best[left] if number == 0 else images[left]
            if self.random_start:
                noise = in_ball(images, self.norm, generator)
                start = (images[left] + eps * noise[left]).clamp(0, 1)
            best[left] = self._climb(model, images[left], labels[left], start, eps)
            if number + 1 < self.restarts:
                left = left[~self.fooled(ask(model, best[left]), labels[left])]
            if len(left) == 0:
                break
        return best

    def _climb(
        self, model: nn.Module, images: Tensor, labels: Tensor, start: Tensor, eps: float
    ) -> Tensor:
        """One run from ``start``."""
        attacked = start.detach().clone()
        active = torch.arange(len(images), device=images.device)
        direction = -1 if self.targeted else 1
        for _ in range(self.steps):
            inputs = attacked[active]
            gradient, logits = slope(model, inputs, labels[active])
            step = self._direction(direction * gradient, inputs)
            stepped = inputs + self.share * eps * step
            if self.stop_early:
                going = ~self.fooled(logits, labels[active])
                active, stepped = active[going], stepped[going]
            if len(active) == 0:
                break
            origin = images[active]
            attacked[active] = (origin + project(stepped - origin, self.norm, eps)).clamp(0, 1)
        return attacked

    def _direction(self, gradient: Tensor, inputs: Tensor) -> Tensor:
        """The step of size 1 in the attack's norm, as the class says."""
        if self.norm == "linf":
            return gradient.sign()
        if self.norm == "l2":
            return unit(gradient)
        stuck = ((inputs <= 0) & (gradient < 0)) | ((inputs >= 1) & (gradient > 0))
        flat = gradient.masked_fill(stuck, 0).flatten(1)
        magnitude = flat.abs()
        kept = flat.shape[1] - math.ceil((flat.shape[1] - 1) * self.sparsity)
        least = magnitude.topk(kept).values[:, -1:]
        signs = torch.where(magnitude >= least, flat.sign(), 0)
        return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).view_as(gradient)
