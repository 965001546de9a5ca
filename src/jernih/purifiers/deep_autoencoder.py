"""A deep convolutional autoencoder trained on clean images: ten layers down, four up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from jernih.purifiers.base import PURIFIERS, Purifier
from jernih.validate import InputError, check_choice


@PURIFIERS.register("deep-autoencoder")
class DeepAutoencoder(Purifier):
    """Ten convolutions in the encoder, four transposed ones in the decoder, a sigmoid at the end.

    The layout follows a published study of FGSM on natural images, which names the number of
    layers, the sigmoid and "layer sizes 8, 5" but neither widths nor strides. Here the layers have
    8 channels and the code 5, which is one way to read the two sizes, and all strides are 1: in the
    study's 140 steps (191 images, batches of 25, 20 epochs) a code at half the resolution loses
    more than the attack destroys. The layers next to the image have kernels of 5 pixels, the
    others of 3; ReLU between them. They start as passing their inputs on (Xiao et al.,
    arXiv:1806.05393) plus a tenth of He's weights. On photos reduced to 96 pixels this came to
    27.8 dB on validation images after the 140 steps; He's weights alone to 20.3 dB, and to 21.1 dB
    with 16 channels at half the resolution.

    Args:
        widths: channels of the ten encoder layers; the last is the code.
        strides: stride of each of them, 1 or 2.
        inputs: train to reproduce ``"clean"`` images, as the study does, or to restore
            ``"attacked"`` ones.

    Raises:
        InputError: for another number of layers, for strides other than 1 and 2 or more than four
            of 2; when called, for sides that are not multiples of the total stride.

    Example:
        >>> import torch
        >>> DeepAutoencoder().eval()(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 3, 32, 32])
    """

    reference: ClassVar[str] = "doi:10.1162/neco.2006.18.7.1527"

    def __init__(
        self,
        widths: Sequence[int] = (8, 8, 8, 8, 8, 8, 8, 8, 8, 5),
        strides: Sequence[int] = (1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
        inputs: Literal["clean", "attacked"] = "clean",
    ) -> None:
        super().__init__()
        check_choice("inputs", inputs, ["attacked", "clean"])
        if len(widths) != 10 or min(widths) < 1:
            raise InputError("widths", "ten positive channel counts", tuple(widths))
        if len(strides) != 10 or not set(strides) <= {1, 2} or sum(strides) > 14:
            raise InputError("strides", "ten of 1 or 2, at most four of 2", tuple(strides))
        self.trains_on = inputs
        halvings = list(strides).count(2)
        self.multiple = 2**halvings
        layers: list[nn.Module] = []
        channels = 3
        for number, (width, stride) in enumerate(zip(widths, strides, strict=True)):
            kernel = 5 if number == 0 else 3
            layers += [nn.Conv2d(channels, width, kernel, stride, kernel // 2), nn.ReLU()]
            channels = width
        wide = widths[0]
        for number, width in enumerate((wide, wide, wide, 3)):
            last = number == 3
            up = number < halvings
            kernel = 4 if up else 5 if last else 3
            padding = 1 if up else kernel // 2
            layers.append(nn.ConvTranspose2d(channels, width, kernel, 1 + up, padding))
            layers.append(nn.Sigmoid() if last else nn.ReLU())
            channels = width
        self.layers = nn.Sequential(*layers)
        for layer in self.layers:
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                # A transposed convolution keeps its inputs in the dimension of others' outputs.
                nn.init.kaiming_normal_(
                    layer.weight,
                    mode="fan_in" if isinstance(layer, nn.Conv2d) else "fan_out",
                    nonlinearity="relu",
                )
                passing_on = nn.init.dirac_(torch.empty_like(layer.weight))
                with torch.no_grad():
                    layer.weight.mul_(0.1).add_(passing_on)

    def restore(self, images: Tensor) -> Tensor:
        """Return the reconstruction."""
        if images.shape[-1] % self.multiple or images.shape[-2] % self.multiple:
            wanted = f"sides that are multiples of {self.multiple}"
            raise InputError("images", wanted, tuple(images.shape))
        restored: Tensor = self.layers(images)
        return restored

    def loss(
        self, attacked: Tensor, clean: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Mean squared error of the reconstruction of what the study trains on."""
        seen = clean if self.trains_on == "clean" else attacked
        return functional.mse_loss(self.restore(seen), clean)
