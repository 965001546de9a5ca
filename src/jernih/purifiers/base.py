"""What every purifier shares: images in, images of the same shape out, both in [0, 1]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from jernih.registry import Configured, Registry


class Purifier(Configured, nn.Module, ABC):
    """A preprocessing layer that turns attacked images back into clear ones.

    A subclass writes :meth:`restore`; one whose training is more than pixel regression writes
    :meth:`loss` too. In evaluation mode the output is a function of the input alone.

    Attributes:
        trainable: whether there is anything to train.
        reference: the publication that describes the method, if any.
    """

    trainable: ClassVar[bool] = True
    reference: ClassVar[str] = ""

    def forward(self, images: Tensor) -> Tensor:
        """Restore images (N, 3, H, W) in [0, 1]; same shape and range."""
        return self.restore(images).clamp(0, 1)

    @abstractmethod
    def restore(self, images: Tensor) -> Tensor:
        """Return restored images; the base clamps them to [0, 1]."""

    def loss(
        self, attacked: Tensor, clean: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Training loss, a scalar: by default the mean squared error to the clean image."""
        return functional.mse_loss(self.restore(attacked), clean)


PURIFIERS: Registry[Purifier] = Registry("purifier")
"""All purifiers by name."""
