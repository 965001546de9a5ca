"""A convolutional autoencoder that learns to remove Gaussian noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from jernih.purifiers.base import PURIFIERS
from jernih.purifiers.conv_autoencoder import ConvAutoencoder
from jernih.validate import check_number


@PURIFIERS.register("denoising-autoencoder")
class DenoisingAutoencoder(ConvAutoencoder):
    """The convolutional autoencoder, trained on clean images with Gaussian noise added.

    No attack takes part in its training, so that what it removes is not fitted to any one attack.
    Source: Gu & Rigazio, arXiv:1412.5068.

    Args:
        widths: channels of the encoder stages; the decoder mirrors them.
        sigma: standard deviation of the noise, on the scale of images in [0, 1].

    Raises:
        InputError: for no stages, a width below one or a sigma outside [0, 1]; when called, for
            images whose sides are not multiples of 2 to the number of stages.

    Example:
        >>> purifier = DenoisingAutoencoder(widths=(8, 16), sigma=0.05)
        >>> clean = torch.rand(1, 3, 32, 32)
        >>> purifier.loss(clean, clean, torch.Generator().manual_seed(0)).shape
        torch.Size([])
    """

    reference: ClassVar[str] = "arXiv:1412.5068"
    trains_on: Literal["attacked", "clean"] = "clean"

    def __init__(self, widths: Sequence[int] = (32, 64), sigma: float = 0.1) -> None:
        super().__init__(widths)
        self.sigma = check_number("sigma", sigma, 0, 1)

    def loss(
        self, attacked: Tensor, clean: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Mean squared error to the clean image, restored from a noisy copy; no attack is seen."""
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        noisy = (clean + self.sigma * noise).clamp(0, 1)
        return functional.mse_loss(self.restore(noisy), clean)
