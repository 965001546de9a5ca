"""Pixel shuffles as transposed convolutions, which ONNX Runtime does in less time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Transposed(nn.Module):
    """A 1×1 convolution and the pixel shuffle after it, by one transposed convolution.

    Every pixel of a square has a bias of its own, which a transposed convolution does not have: it
    is the weight of one more channel of ones.
    """

    weight: Tensor

    def __init__(self, convolution: nn.Conv2d, factor: int) -> None:
        super().__init__()
        self.factor = factor
        outputs = convolution.out_channels // factor**2
        squares = (outputs, factor, factor)
        with torch.no_grad():
            rows = [convolution.weight[:, :, 0, 0].T.reshape(-1, *squares)]
            bias = convolution.bias
            self.biased = bias is not None
            if bias is not None:
                rows.append(bias.reshape(1, *squares))
            self.register_buffer("weight", torch.cat(rows).contiguous())

    def forward(self, maps: Tensor) -> Tensor:
        if self.biased:
            maps = torch.cat([maps, torch.ones_like(maps[:, :1])], 1)
        return functional.conv_transpose2d(maps, self.weight, stride=self.factor)


def transpose_shuffles(module: nn.Module) -> nn.Module:
    """Replace each 1×1 convolution with a pixel shuffle after it, inside ``module``.

    Only where a ``nn.Sequential`` is made of just the two, so that nothing else makes use of what
    lies between them.

    Args:
        module: a module that is not trained any more.

    Returns:
        the same module; its outputs differ by rounding alone.
    """
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Sequential) and len(child) == 2:
            first, second = child
            if (
                isinstance(first, nn.Conv2d)
                and isinstance(second, nn.PixelShuffle)
                and first.kernel_size == first.stride == first.dilation == (1, 1)
                and first.padding == (0, 0)
                and first.groups == 1
            ):
                setattr(module, name, _Transposed(first, second.upscale_factor))
                continue
        transpose_shuffles(child)
    return module
