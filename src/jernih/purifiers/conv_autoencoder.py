"""A plain convolutional autoencoder."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from jernih.purifiers.base import PURIFIERS, Purifier
from jernih.validate import InputError


@PURIFIERS.register("conv-autoencoder")
class ConvAutoencoder(Purifier):
    """Convolutional autoencoder that regresses the clean image (denoising autoencoder).

    Every encoder stage halves the resolution with a strided 3×3 convolution; every decoder stage
    doubles it with a transposed one; a last 3×3 convolution with a sigmoid gives the image. Without
    skip connections, whatever the narrowest stage cannot hold is lost, perturbation and detail
    alike. Source: Gu & Rigazio, arXiv:1412.5068.

    Args:
        widths: channels of the encoder stages; the decoder mirrors them.

    Raises:
        InputError: for no stages or a width below one; when called, for images whose sides are
            not multiples of 2 to the number of stages.

    Example:
        >>> import torch
        >>> ConvAutoencoder(widths=(8, 16)).eval()(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 3, 32, 32])
    """

    reference: ClassVar[str] = "arXiv:1412.5068"

    def __init__(self, widths: Sequence[int] = (32, 64)) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise InputError("widths", "one or more positive channel counts", tuple(widths))
        self.multiple = 2 ** len(widths)
        stages = [3, *widths]
        layers: list[nn.Module] = []
        for narrow, wide in itertools.pairwise(stages):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.ReLU()]
        downwards = [*reversed(widths), widths[0]]
        for wide, narrow in itertools.pairwise(downwards):
            layers += [nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(widths[0], 3, 3, padding=1), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)

    def restore(self, images: Tensor) -> Tensor:
        """Return the reconstruction."""
        if images.shape[-1] % self.multiple or images.shape[-2] % self.multiple:
            raise InputError(
                "images", f"sides that are multiples of {self.multiple}", tuple(images.shape)
            )
        restored: Tensor = self.layers(images)
        return restored
