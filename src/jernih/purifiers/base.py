"""What every purifier shares: images in, images of the same shape out, both in [0, 1]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from jernih.registry import Configured, Registry


class Purifier(Configured, nn.Module, ABC):
    """A preprocessing layer that turns attacked images back into clear ones.

    A subclass writes :meth:`restore`; one whose training is more than pixel regression writes
    :meth:`loss` too, one that learns in closed form :meth:`fit` instead. In evaluation mode the
    output is a function of the input alone.

    Attributes:
        learns: ``"by gradient"`` (:meth:`loss`), ``"in closed form"`` (:meth:`fit`), or
            ``"nothing"``.
        trains_on: whether :meth:`loss` wants attacked images or is content with clean ones, which
            saves the attack.
        multiple: images are refused whose sides are not multiples of it.
        feature_count: how many :meth:`features` there are; 0 for none.
        reference: the publication that describes the method, if any.
    """

    learns: Literal["by gradient", "in closed form", "nothing"] = "by gradient"
    trains_on: Literal["attacked", "clean"] = "attacked"
    multiple: int = 1
    feature_count: int = 0
    reference: ClassVar[str] = ""

    def forward(self, images: Tensor) -> Tensor:
        """Restore images (N, 3, H, W) in [0, 1]; same shape and range."""
        restored = self.restore(images)
        if not restored.requires_grad:
            return restored.clamp(0, 1)
        # A clamp has no gradient where it acts, at the very bounds too: an attacker would see
        # none on black and white pixels.
        return straight_through(lambda raw: raw.clamp(0, 1), restored)

    @abstractmethod
    def restore(self, images: Tensor) -> Tensor:
        """Return restored images; the base clamps them to [0, 1]."""

    def loss(
        self, attacked: Tensor, clean: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Training loss, a scalar: by default the mean squared error to the clean image."""
        return functional.mse_loss(self.restore(attacked), clean)

    def features(self, images: Tensor) -> Tensor:
        """What the purifier makes of each image as a whole, (N, ``feature_count``)."""
        raise NotImplementedError(f"{self.name!r} has no features of the image as a whole")

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Learn from clean images, given as batches (N, 3, H, W), in one pass."""
        raise NotImplementedError(f"{self.name!r} learns {self.learns}")


class _StraightThrough(torch.autograd.Function):
    """Any function forwards, the identity backwards."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, restore: Callable[[Tensor], Tensor]) -> Tensor:
        return restore(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def straight_through(restore: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Apply a function without a useful gradient, and let gradients pass as if it did nothing.

    This is the backward pass differentiable approximation with the identity (BPDA, Athalye et
    al., arXiv:1802.00420): without it an adaptive attacker would see no gradient, and the purifier
    would look stronger than it is.

    Args:
        restore: images (N, 3, H, W) → images of the same shape, such as a codec.
        images: the images.
    """
    output: Tensor = _StraightThrough.apply(images, restore)
    return output


PURIFIERS: Registry[Purifier] = Registry("purifier")
"""All purifiers by name."""
