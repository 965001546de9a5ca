"""Projection of image patches onto their principal components."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import numpy as np
import scipy.fft
import torch
from torch import Tensor
from torch.nn import functional

from jernih.purifiers.base import PURIFIERS, Purifier
from jernih.validate import InputError, check_number


@PURIFIERS.register("pca")
class PCA(Purifier):
    """Project square patches of the colour image onto the principal components of clean ones.

    The image is cut into patches that do not overlap; each is replaced by the nearest point of
    the plane that :meth:`fit` found. Sides that are not multiples of the patch are continued with
    their last row or column, and cut again afterwards. Before :meth:`fit` the components are the
    cosines of lowest frequency in each colour, about a mean of 0.5: a mere smoothing. Source:
    Bhagoji et al., arXiv:1704.02654, who project whole images.

    Args:
        patch: side of a patch in pixels, at most 64.
        components: dimensions kept out of 3 · patch².

    Attributes:
        mean: the mean patch (3 · patch²,).
        basis: the components as orthonormal rows (components, 3 · patch²), strongest first.

    Raises:
        InputError: for sizes out of range; when called, for images without three channels.

    Example:
        >>> images = torch.rand(4, 3, 32, 32)
        >>> purifier = PCA(patch=8, components=12)
        >>> purifier.fit([images[:2], images[2:]])
        >>> purifier(images).shape
        torch.Size([4, 3, 32, 32])
    """

    learns: Literal["in closed form"] = "in closed form"
    reference: ClassVar[str] = "arXiv:1704.02654"
    mean: Tensor
    basis: Tensor

    def __init__(self, patch: int = 16, components: int = 64) -> None:
        super().__init__()
        if check_number("patch", patch, 1, 64) % 1:
            raise InputError("patch", "a whole number", patch)
        size = 3 * int(patch) ** 2
        if check_number("components", components, 1, size) % 1:
            raise InputError("components", "a whole number", components)
        self.patch = int(patch)
        self.register_buffer("mean", torch.full((size,), 0.5))
        self.register_buffer("basis", _cosines(self.patch, int(components)))

    def restore(self, images: Tensor) -> Tensor:
        """Return the images with every patch projected."""
        height, width = images.shape[-2:]
        codes = functional.linear(self._patches(images) - self.mean, self.basis)
        patches = codes @ self.basis + self.mean
        restored = functional.pixel_shuffle(patches.movedim(-1, 1), self.patch)
        return restored[..., :height, :width]

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Learn mean and components from clean images, given as batches (N, 3, H, W), in one pass.

        Memory holds one batch and the covariance, (3 · patch²)² numbers of 64 bits.

        Raises:
            InputError: for fewer patches than components.
        """
        count = 0
        mean = torch.zeros_like(self.mean, dtype=torch.float64)
        scatter = mean.new_zeros(len(mean), len(mean))
        for images in batches:
            patches = self._patches(images.to(self.mean.device)).double().flatten(0, 2)
            total = count + len(patches)
            centre = patches.mean(0)
            shift = centre - mean
            patches = patches - centre
            scatter += patches.T @ patches + shift.outer(shift) * (count * len(patches) / total)
            mean += shift * (len(patches) / total)
            count = total
        if count < len(self.basis):
            raise InputError("batches", f"at least {len(self.basis)} patches", count)
        _, vectors = torch.linalg.eigh(scatter)
        self.mean.copy_(mean)
        self.basis.copy_(vectors.T.flip(0)[: len(self.basis)])

    def _patches(self, images: Tensor) -> Tensor:
        """The patches (N, rows, columns, 3 · patch²) of images (N, 3, H, W)."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise InputError("images", "shape (N, 3, H, W)", tuple(images.shape))
        height, width = images.shape[-2:]
        padding = (0, -width % self.patch, 0, -height % self.patch)
        whole = functional.pad(images, padding, mode="replicate")
        return functional.pixel_unshuffle(whole, self.patch).movedim(1, -1)


def _cosines(patch: int, count: int) -> Tensor:
    """The ``count`` orthonormal cosine patches of lowest frequency, in each colour, as rows."""
    cosines = scipy.fft.dct(np.eye(patch), axis=0, norm="ortho")
    frequencies = [(u, v) for u in range(patch) for v in range(patch)]
    frequencies.sort(key=lambda pair: (sum(pair), pair))
    rows = [
        np.kron(colour, np.outer(cosines[u], cosines[v]).ravel())
        for u, v in frequencies[: -(-count // 3)]
        for colour in np.eye(3)
    ]
    return torch.from_numpy(np.stack(rows[:count])).float()
