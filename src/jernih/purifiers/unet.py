"""A residual U-Net that predicts the perturbation and takes it away."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from jernih.purifiers.base import PURIFIERS, Purifier
from jernih.validate import InputError, check_choice, check_count, check_number

Precision = Literal["float32", "bfloat16"]


class Block(nn.Module):
    """Two 3×3 convolutions beside the identity; the second starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        if self.second.bias is not None:
            nn.init.zeros_(self.second.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W), same shape."""
        out: Tensor = maps + self.second(functional.relu(self.first(maps)))
        return out


class Level(nn.Module):
    """A scale and a shift for each map of the decoder, by how disturbed the image is.

    That is estimated from the means of all the encoder's maps (FiLM, Perez et al.,
    arXiv:1709.07871). Scales start at one, shifts at zero: nothing changes at first.
    """

    def __init__(self, seen: Sequence[int], steered: Sequence[int], hidden: int = 32) -> None:
        super().__init__()
        self.steered = tuple(steered)
        self.estimate = nn.Linear(sum(seen), hidden)
        self.steer = nn.Linear(hidden, 2 * sum(steered))
        nn.init.zeros_(self.steer.weight)
        nn.init.zeros_(self.steer.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Scale and shift, each (N, C, 1, 1), of every stage, from the encoder's maps."""
        means = torch.cat([stage.mean((2, 3)) for stage in maps], 1)
        both = self.steer(functional.relu(self.estimate(means)))[..., None, None]
        scales, shifts = both.chunk(2, 1)
        return [
            (1 + scale, shift)
            for scale, shift in zip(
                scales.split(self.steered, 1), shifts.split(self.steered, 1), strict=True
            )
        ]


@PURIFIERS.register("unet")
class UNet(Purifier):
    """Residual U-Net: output = input + prediction.

    Each stage of the encoder halves the resolution; the decoder adds the encoder's maps on its way
    back up (Ronneberger et al., arXiv:1505.04597). The last layer starts at zero: an untrained
    network gives its input back. With ``shuffle`` the image is first rearranged from (3, H, W) to
    (3s², H/s, W/s) (pixel unshuffle, Shi et al., arXiv:1609.05158), so that all convolutions work
    at a coarser resolution, where they cost less. Images of any size are padded by reflection and
    cut back. There is no normalisation layer: an image's result does not depend on its batch, and
    on contrast it depends as it may learn to.

    Args:
        widths: channels of the stages, from the finest on.
        blocks: residual blocks of each stage of the encoder; the decoder has one in each.
        shuffle: s, the side of the squares of pixels rearranged into channels; 1 for none.
        condition: whether the decoder's maps are scaled and shifted by the strength of the
            disturbance, which the network estimates (as FFDNet is told it, arXiv:1710.04026).
        precision: ``"bfloat16"`` for less time outside training, on processors and GPUs that
            multiply it in hardware (``jernih doctor``); elsewhere it takes more. The first layer,
            which sees single grey levels, and the sum with the image stay in float32; so do ONNX
            files as a whole.
        strength: factor on the prediction outside training, from 0 on. On images not trained on,
            networks predict perturbations of the right direction and too small: what is left of
            them still points a classifier the wrong way. A little more than 1 mends that, at some
            cost in PSNR; choose it on validation images.

    Raises:
        InputError: for no stages, other than one number of blocks a stage, counts below one, a
            negative strength, another precision, or conditioning of a network of one stage, which
            has no decoder.

    Example:
        >>> import torch
        >>> purifier = UNet(widths=(8, 16), blocks=(1, 1)).eval()
        >>> images = torch.rand(1, 3, 30, 45)
        >>> bool((purifier(images) == images).all())
        True
    """

    reference: ClassVar[str] = "arXiv:1505.04597"

    def __init__(
        self,
        widths: Sequence[int] = (16, 32, 64, 96),
        blocks: Sequence[int] = (1, 1, 1, 1),
        shuffle: int = 1,
        condition: bool = False,
        strength: float = 1.0,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        check_choice("precision", precision, get_args(Precision))
        self.precision: Precision = precision
        self.strength = check_number("strength", strength, 0, 10)
        if not widths or min(widths) < 1:
            raise InputError("widths", "one or more positive channel counts", tuple(widths))
        if len(blocks) != len(widths) or min(blocks) < 1:
            raise InputError("blocks", f"{len(widths)} counts from 1 on", tuple(blocks))
        self.shuffle = check_count("shuffle", shuffle)
        self.factor = shuffle * 2 ** (len(widths) - 1)
        channels = 3 * shuffle**2
        self.enter = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            nn.Sequential(*(Block(width) for _ in range(count)))
            for width, count in zip(widths, blocks, strict=True)
        )
        self.narrow = nn.ModuleList(
            nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in itertools.pairwise(widths)
        )
        self.widen = nn.ModuleList(
            nn.Sequential(nn.Conv2d(coarse, 4 * fine, 1), nn.PixelShuffle(2))
            for fine, coarse in itertools.pairwise(widths)
        )
        self.up = nn.ModuleList(Block(width) for width in widths[:-1])
        if condition and len(widths) == 1:
            raise InputError("condition", "False for a network of one stage", condition)
        self.level = Level(widths, widths[-2::-1]) if condition else None
        self.leave = nn.Conv2d(widths[0], channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        if self.leave.bias is not None:
            nn.init.zeros_(self.leave.bias)

    def restore(self, images: Tensor) -> Tensor:
        """Return the images less the perturbation predicted."""
        height, width = images.shape[-2:]
        below, right = -height % self.factor, -width % self.factor
        padded = images
        if below or right:
            # Reflection needs more pixels than it adds; tiny images repeat their edge instead.
            mode = "reflect" if below < height and right < width else "replicate"
            padded = functional.pad(images, (0, right, 0, below), mode=mode)
        # By one it would change nothing, and yet copy the whole image.
        coarse = self.shuffle > 1
        maps = self.enter(functional.pixel_unshuffle(padded, self.shuffle) if coarse else padded)
        if self.precision == "float32" or self.training:
            predicted = self._predict(maps)
        else:
            with torch.autocast(images.device.type, getattr(torch, self.precision)):
                predicted = self._predict(maps).to(images.dtype)
        if coarse:
            predicted = functional.pixel_shuffle(predicted, self.shuffle)
        predicted = predicted[..., :height, :width]
        if self.strength != 1 and not self.training:
            predicted = self.strength * predicted
        restored: Tensor = images + predicted
        return restored

    def _predict(self, maps: Tensor) -> Tensor:
        """The perturbation, with its sign turned, from the maps of the first layer."""
        kept = []
        for stage, narrow in zip(self.down, self.narrow, strict=False):
            maps = stage(maps)
            kept.append(maps)
            maps = narrow(maps)
        maps = self.down[-1](maps)
        levels = self.level([*kept, maps]) if self.level is not None else [None] * len(kept)
        for widen, block, beside, level in zip(
            reversed(self.widen), reversed(self.up), reversed(kept), levels, strict=True
        ):
            maps = widen(maps) + beside
            maps = block(maps if level is None else level[0] * maps + level[1])
        predicted: Tensor = self.leave(maps)
        return predicted


@PURIFIERS.register("jernih-s")
class JernihS(UNet):
    """The small U-Net, under half a million parameters.

    It works on whole pixels: in the same training time networks on pixels rearranged by 2 or by 4
    restored far less.

    Args:
        strength: as for :class:`UNet`.
        precision: likewise.
    """

    def __init__(self, strength: float = 1.0, precision: Precision = "float32") -> None:
        super().__init__((16, 32, 64, 96), (1, 1, 1, 1), 1, strength=strength, precision=precision)


@PURIFIERS.register("jernih-m")
class JernihM(UNet):
    """The medium U-Net, under 4 M parameters.

    Args:
        strength: as for :class:`UNet`.
        precision: likewise.
    """

    def __init__(self, strength: float = 1.0, precision: Precision = "float32") -> None:
        super().__init__(
            (24, 64, 128, 224), (1, 1, 2, 2), 1, strength=strength, precision=precision
        )
