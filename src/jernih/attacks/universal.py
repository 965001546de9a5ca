"""One perturbation for all images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from jernih.attacks.base import ATTACKS, Attack, check_model, project
from jernih.attacks.fgsm import slope
from jernih.types import Norm
from jernih.validate import (
    InputError,
    check_choice,
    check_count,
    check_images,
    check_labels,
    check_logits,
)

BOUNDS: dict[Norm, float | str] = {"linf": "10/255", "l2": 10.0}
"""The bound in each norm where none is given: about that of the first publication."""


@ATTACKS.register("universal")
class Universal(Attack):
    r"""A universal perturbation, by gradient steps on many images at once.

    One δ that is added to every image, as Moosavi-Dezfooli et al. (arXiv:1610.08401) found that it
    exists. Their search runs DeepFool on one image after the other; this is the form of Shafahi et
    al. (arXiv:1811.11304), which needs one gradient a batch instead: with d the sign (L∞) or the
    unit vector (L2) of the mean gradient of the cross-entropy, cut off where one image alone would
    lead (at 9, where an image has long been fooled),

    .. math:: δ ← Π_{B(0, ε)} \bigl(δ + α\, d\bigr)

    A call learns δ on the batch that it attacks. To learn it on many images and show it to others,
    use :meth:`learn` and :meth:`apply`.

    Args:
        eps: bound on δ, on the scale of images in [0, 1]; None for 10/255 in L∞ and 10 in L2.
        norm: ``"linf"`` or ``"l2"``.
        targeted: the labels passed are classes to reach.
        steps: how often to go over the batch.

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

    def learn(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Learn a perturbation (1, C, H, W) on batches of images and labels.

        Each batch gives one step of ε/10; pass them several times over for more steps.

        Raises:
            InputError: for no batches, a model in training mode, or images that are none.
        """
        check_model(model)
        delta: Tensor | None = None
        for images, labels in batches:
            images = check_images(images)
            if delta is None:
                delta = torch.zeros_like(images[:1])
            delta = self._step(model, images, labels, delta, self.eps, 0.1)
        if delta is None:
            raise InputError("batches", "at least one batch", "none")
        return delta

    def apply(self, images: Tensor, delta: Tensor) -> Tensor:
        """Add a perturbation to images (N, C, H, W) and keep them in [0, 1]."""
        return (check_images(images) + delta).clamp(0, 1)

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
            with torch.no_grad():
                logits = check_logits(model((images + delta).clamp(0, 1)), len(images))
                check_labels(labels, len(images), logits.shape[1])
                fooled = int(self.fooled(logits, labels).sum())
            if fooled > most:
                best, most = delta, fooled
            if number < self.steps and most < len(images):
                share = max(0.3 * (1 - number / self.steps), 0.02)
                delta = self._step(model, images, labels, delta, eps, share)
        return (images + best).clamp(0, 1)

    def _step(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        delta: Tensor,
        eps: float,
        share: float,
    ) -> Tensor:
        """δ after one step of a share of ε."""
        shown = (images + delta).clamp(0, 1)
        gradient, logits = slope(model, shown, labels)
        if not self.targeted:
            sure = -logits.log_softmax(1).gather(1, labels[:, None]).squeeze(1)
            gradient = gradient * (sure < 9).view(-1, 1, 1, 1)
        way = gradient.mean(0, keepdim=True) * (-1 if self.targeted else 1)
        if self.norm == "linf":
            way = way.sign()
        else:
            way = way / way.abs().amax().clamp_min(1e-38)
            way = way / way.norm().clamp_min(1e-12)
        return project(delta + share * eps * way, self.norm, eps)
