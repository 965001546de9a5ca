"""Sparse approximation of an image by its largest wavelet coefficients."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import pywt
import torch
from torch import Tensor

from jernih.purifiers.base import PURIFIERS, Purifier, straight_through
from jernih.validate import InputError, check_choice, check_number


@PURIFIERS.register("wavelet")
class Wavelet(Purifier):
    """Keep the largest wavelet coefficients of each image and channel, and drop the rest.

    Clean images are nearly sparse in wavelets, a perturbation bounded in the maximum norm is not.
    The image is continued periodically, which with an orthogonal wavelet makes the outcome the
    nearest image of so few coefficients (sides odd at some level aside). Coefficients that tie
    with the last one kept are kept too. Source: Marzi et al., arXiv:1801.04695.

    Args:
        wavelet: a discrete wavelet that PyWavelets knows.
        levels: levels of the decomposition; at most, and without a number, as many as the size
            of the images allows the wavelet.
        keep: share of the coefficients kept, at least 1e-6.

    Raises:
        InputError: for an unknown wavelet or a number out of range; when called, for images too
            small for one level.

    Example:
        >>> Wavelet(keep=0.1)(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 3, 32, 32])
    """

    learns: Literal["nothing"] = "nothing"
    reference: ClassVar[str] = "arXiv:1801.04695"

    def __init__(
        self, wavelet: str = "sym4", levels: int | None = None, keep: float = 0.05
    ) -> None:
        super().__init__()
        check_choice("wavelet", wavelet, pywt.wavelist(kind="discrete"))
        if levels is not None and check_number("levels", levels, 1, 32) % 1:
            raise InputError("levels", "a whole number", levels)
        self.wavelet = wavelet
        self.levels = 32 if levels is None else int(levels)
        self.keep = check_number("keep", keep, 1e-6, 1)

    def restore(self, images: Tensor) -> Tensor:
        """Return the images made of their largest coefficients; gradients pass unchanged."""
        return straight_through(self._sparse, images)

    def _sparse(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        levels = min(self.levels, pywt.dwtn_max_level((height, width), self.wavelet))
        if levels < 1:
            least = 2 * (pywt.Wavelet(self.wavelet).dec_len - 1)
            wanted = f"sides of at least {least} for {self.wavelet}"
            raise InputError("images", wanted, tuple(images.shape))
        pixels = images.detach().cpu().numpy()
        parts = pywt.wavedec2(pixels, self.wavelet, mode="periodization", level=levels)
        values, places = pywt.coeffs_to_array(parts, axes=(-2, -1))
        sizes = np.abs(values)
        flat = sizes.reshape(*sizes.shape[:2], -1)
        last = flat.shape[-1] - max(1, round(self.keep * flat.shape[-1]))
        least_kept = np.partition(flat, last, axis=-1)[..., last, None, None]
        values[sizes < least_kept] = 0
        parts = pywt.array_to_coeffs(values, places, output_format="wavedec2")
        restored = pywt.waverec2(parts, self.wavelet, mode="periodization")
        return torch.from_numpy(restored[..., :height, :width]).to(images)
