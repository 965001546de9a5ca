"""Total variation denoising."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from skimage.restoration import denoise_tv_chambolle
from torch import Tensor

from jernih.purifiers.base import PURIFIERS, Purifier, straight_through
from jernih.validate import check_number


@PURIFIERS.register("total-variation")
class TotalVariation(Purifier):
    r"""Flatten small variations and keep edges, channel by channel.

    The outcome approaches, by at most 200 steps of scikit-image's projection algorithm,

    .. math:: \arg\min_u \tfrac12 \|u - x\|^2 + w \, \mathrm{TV}(u)

    with the isotropic total variation TV. Source: Chambolle,
    doi:10.1023/B:JMIV.0000011325.36760.1e; as a defence Guo et al., arXiv:1711.00117.

    Args:
        weight: weight w of the variation, in [1e-6, 1000]; more is smoother.
        tolerance: the steps end when one changes the objective by less than this share of its
            first value.

    Raises:
        InputError: for numbers out of range.

    Example:
        >>> TotalVariation(weight=0.1)(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 3, 32, 32])
    """

    learns: Literal["nothing"] = "nothing"
    reference: ClassVar[str] = "arXiv:1711.00117"

    def __init__(self, weight: float = 0.05, tolerance: float = 2e-4) -> None:
        super().__init__()
        self.weight = check_number("weight", weight, 1e-6, 1000)
        self.tolerance = check_number("tolerance", tolerance, 0, 1)

    def restore(self, images: Tensor) -> Tensor:
        """Return the smoothed images; gradients pass unchanged."""
        return straight_through(self._smoothed, images)

    def _smoothed(self, images: Tensor) -> Tensor:
        smoothed = [
            denoise_tv_chambolle(  # type: ignore[no-untyped-call]
                image, self.weight, self.tolerance, channel_axis=0
            )
            for image in images.detach().cpu().numpy()
        ]
        return torch.from_numpy(np.stack(smoothed)).to(images)
