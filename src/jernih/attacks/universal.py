"""One perturbation for all images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from jernih.attacks.asking import ask, slope
from jernih.attacks.base import ATTACKS, Attack, check_model, project
from jernih.attacks.penalty import check_positive
from jernih.types import Norm
from jernih.validate import (
    InputError,
    check_choice,
    check_count,
    check_images,
    check_labels,
)

BOUNDS: dict[Norm, float | str] = {"linf": "10/255", "l2": 10.0}
"""The bound in each norm where none is given: about that of the first publication."""
LONGEST, SHORTEST = 0.3, 0.02
"""Shares of ε that the first and the last step in a call are long."""
SURE = 9.0
"""The cross-entropy at which an image no longer leads, as published: it has long been fooled."""


@ATTACKS.register("universal")
class Universal(Attack):
    r"""A universal perturbation, by gradient steps on many images at once.

    One δ that is added to every image, as Moosavi-Dezfooli et al. (arXiv:1610.08401) found that it
    exists. Their search goes through the images one by one and runs DeepFool on each that is not
    fooled yet. This is the form of Shafahi et al. (arXiv:1811.11304): one gradient a batch, a goal
    that says what is climbed, a targeted form, and any number of images in batches, at a fraction
    of the cost. With d the sign (L∞) or the unit vector (L2) of the mean gradient of the
    cross-entropy, over the images whose cross-entropy is below 9 lest one of them lead alone,

    .. math:: δ ← Π_{B(0, ε)} \bigl(δ + α\, d\bigr)

    A call learns δ on the batch that it attacks, in steps that grow shorter, and keeps the δ that
    fooled most images. To learn on many images and attack others, use :meth:`learn` and
    :meth:`apply`: what fools the images that it was learned on says little about new ones.

    Args:
        eps: bound on δ, on the scale of images in [0, 1]; None for 10/255 in L∞ and 10 in L2.
        norm: ``"linf"`` or ``"l2"``.
        targeted: the labels passed are classes to reach.
        steps: how often a call goes over its batch; one gradient each.

    Raises:
        InputError: for another norm or no steps.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
        >>> images = torch.rand(4, 3, 2, 2) / 2 + 0.25
        >>> result = Universal(0.1)(model, images, model(images).argmax(1))
        >>> changes = result.images - images
        >>> bool(torch.allclose(changes[0], changes[1], atol=1e-6))
        True
    """

    reference: ClassVar[str] = "arXiv:1811.11304"
    shares: ClassVar[bool] = True

    def __init__(
        self,
        eps: float | str | None = None,
        *,
        norm: Norm = "linf",
        targeted: bool = False,
        steps: int = 50,
    ) -> None:
        check_choice("norm", norm, tuple(BOUNDS))
        self.norm = norm
        if eps is None:
            eps = self.options["eps"] = BOUNDS[norm]
        super().__init__(eps, targeted=targeted)
        self.steps = check_count("steps", steps)

    def learn(
        self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, share: float = 0.1
    ) -> Tensor:
        """Learn a perturbation (1, C, H, W) on batches of images and labels.

        Each batch gives one step; for more of them, pass the batches several times over.

        Args:
            model: images in [0, 1] → logits (N, K), in evaluation mode.
            batches: pairs of images float32 (N, C, H, W) in [0, 1], of one size, and labels int64
                (N,); N may differ.
            share: the length of a step as a share of ε.

        Raises:
            InputError: for no batches, a model in training mode, images or labels of another form,
                and a share that is not in (0, 2].
        """
        check_model(model)
        check_positive("share", share, 2)
        delta: Tensor | None = None
        for images, labels in batches:
            images = check_images(images)
            check_labels(labels, len(images))
            if delta is None:
                delta = torch.zeros_like(images[:1])
            _check_size(images, delta)
            gradient, _ = self._gradient(model, images, labels, delta)
            delta = self._moved(delta, gradient, self.eps, share)
        if delta is None:
            raise InputError("batches", "at least one batch", "none")
        return delta

    def apply(self, images: Tensor, delta: Tensor) -> Tensor:
        """Add a perturbation (1, C, H, W) to images (N, C, H, W) and keep them in [0, 1].

        Raises:
            InputError: for images of another form or size.
        """
        images = check_images(images)
        _check_size(images, delta)
        return (images + delta.to(images)).clamp(0, 1)

    def run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        eps: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return attacked images for one bound."""
        delta = torch.zeros_like(images[:1])
        best, most = delta, -1
        for number in range(self.steps + 1):
            if number < self.steps:
                gradient, logits = self._gradient(model, images, labels, delta)
            else:
                logits = ask(model, (images + delta).clamp(0, 1))
            fooled = int(self.fooled(logits, labels).sum())
            if fooled > most:
                best, most = delta, fooled
            if most == len(images) or number == self.steps:
                break
            share = max(LONGEST * (1 - number / self.steps), SHORTEST)
            delta = self._moved(delta, gradient, eps, share)
        return (images + best).clamp(0, 1)

    def _gradient(
        self, model: nn.Module, images: Tensor, labels: Tensor, delta: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean gradient (1, C, H, W) towards the goal, and the logits (N, K), under δ."""
        gradient, logits = slope(model, (images + delta).clamp(0, 1), labels)
        if self.targeted:
            return -gradient.mean(0, keepdim=True), logits
        loss = functional.cross_entropy(logits, labels, reduction="none")
        leads = (loss < SURE).view(-1, 1, 1, 1)
        return (gradient * leads).mean(0, keepdim=True), logits

    def _moved(self, delta: Tensor, gradient: Tensor, eps: float, share: float) -> Tensor:
        """δ after a step of a share of ε along the gradient."""
        if self.norm == "linf":
            way = gradient.sign()
        else:
            # Over the largest first: squares of the gradients of a sure model underflow.
            way = gradient / gradient.abs().amax().clamp_min(1e-38)
            way = way / way.norm().clamp_min(1e-12)
        return project(delta + share * eps * way, self.norm, eps)


def _check_size(images: Tensor, delta: Tensor) -> None:
    if images.shape[1:] != delta.shape[1:]:
        raise InputError("images", f"size {tuple(delta.shape[1:])}", tuple(images.shape[1:]))
