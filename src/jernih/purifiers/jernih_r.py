"""A purifier that looks at averages of pixels, for training against attackers who know it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from jernih.purifiers.base import PURIFIERS, Purifier
from jernih.validate import InputError, check_count


def _twice(entering: int, leaving: int, stride: int = 1) -> nn.Sequential:
    """Two 3×3 convolutions with batch norm; the first may halve the resolution."""
    layers: list[nn.Module] = []
    for inside, step in ((entering, stride), (leaving, 1)):
        layers += [
            nn.Conv2d(inside, leaving, 3, step, 1, bias=False),
            nn.BatchNorm2d(leaving),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


@PURIFIERS.register("jernih-r")
class JernihR(Purifier):
    r"""The robust one: it sees squares of pixels by their means alone, and draws the rest anew.

    .. math:: x̂ = U(D(x)) + W(D(x)),

    D the means of squares of ``factor`` × ``factor`` pixels, U linear interpolation back to all
    pixels, W a U-Net (Ronneberger et al., arXiv:1505.04597) that works at the coarse resolution
    and draws on whole pixels (pixel shuffle, Shi et al., arXiv:1609.05158). What a perturbation
    does within a square is gone before any weight sees it: classifiers are easiest to fool there.
    What it does to the means is left to training, best against attacks through purifier and
    classifier. The means of all maps of the coarsest stage scale and shift those of the others
    (FiLM, Perez et al., arXiv:1709.07871), so that what the image shows as a whole can decide.

    It gives up the finest detail of the image for that: the restored image is for the classifier,
    not for reading. Untrained it is U(D(x)). Images of any size are padded by repeating their edge.

    Args:
        factor: the side of the squares.
        widths: channels of the stages, from the finest on; each halves the resolution.

    Raises:
        InputError: for fewer than two stages, or counts below one.

    Example:
        >>> import torch
        >>> purifier = JernihR(factor=2, widths=(8, 16)).eval()
        >>> purifier(torch.rand(1, 3, 30, 45)).shape
        torch.Size([1, 3, 30, 45])
    """

    reference: ClassVar[str] = "arXiv:1505.04597"

    def __init__(self, factor: int = 4, widths: Sequence[int] = (32, 64, 128, 128)) -> None:
        super().__init__()
        self.factor = check_count("factor", factor)
        if len(widths) < 2 or min(widths) < 1:
            raise InputError("widths", "two or more positive channel counts", tuple(widths))
        self.feature_count = widths[-1]
        self.enter = _twice(3, widths[0])
        self.down = nn.ModuleList(
            _twice(fine, coarse, 2) for fine, coarse in itertools.pairwise(widths)
        )
        self.steer = nn.Linear(widths[-1], 2 * sum(widths[:-1]))
        nn.init.zeros_(self.steer.weight)
        nn.init.zeros_(self.steer.bias)
        self.widen = nn.ModuleList(
            nn.Sequential(nn.Conv2d(coarse, 4 * fine, 1), nn.PixelShuffle(2))
            for fine, coarse in reversed(list(itertools.pairwise(widths)))
        )
        self.up = nn.ModuleList(_twice(width, width) for width in reversed(widths[:-1]))
        self.leave = nn.Conv2d(widths[0], 3 * factor**2, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        if self.leave.bias is not None:
            nn.init.zeros_(self.leave.bias)

    def features(self, images: Tensor) -> Tensor:
        """The means of the coarsest maps, (N, C)."""
        return self._coarsest(self._means(images))[0].mean((2, 3))

    def restore(self, images: Tensor) -> Tensor:
        """Return the image as drawn from the means of its squares."""
        means = self._means(images)
        maps, kept = self._coarsest(means)
        steered = self.steer(maps.mean((2, 3)))[..., None, None]
        both = steered.split([2 * beside.shape[1] for beside in reversed(kept)], 1)
        for widen, block, beside, level in zip(
            self.widen, self.up, reversed(kept), both, strict=True
        ):
            scale, shift = level.chunk(2, 1)
            maps = block((1 + scale) * (widen(maps) + beside) + shift)
        drawn = functional.pixel_shuffle(self.leave(maps), self.factor)
        smooth = functional.interpolate(
            means, scale_factor=float(self.factor), mode="bilinear", align_corners=False
        )
        restored: Tensor = smooth + drawn
        return restored[..., : images.shape[-2], : images.shape[-1]]

    def _means(self, images: Tensor) -> Tensor:
        """The means of squares of pixels, of as many as the stages can halve."""
        side = self.factor * 2 ** len(self.down)
        below, right = -images.shape[-2] % side, -images.shape[-1] % side
        if below or right:
            images = functional.pad(images, (0, right, 0, below), mode="replicate")
        return functional.avg_pool2d(images, self.factor)

    def _coarsest(self, means: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The maps of the coarsest stage, and those of the stages before it."""
        maps: Tensor = self.enter(means)
        kept = []
        for stage in self.down:
            kept.append(maps)
            maps = stage(maps)
        return maps, kept
