"""Modify: from files of any size to images that a model takes, and their augmented variants."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from jernih.data.images import read_image
from jernih.data.manifest import Manifest
from jernih.randomness import generator, seeded
from jernih.storage import atomic_path
from jernih.validate import InputError, check_choice, check_number

log = logging.getLogger(__name__)

Fit = Literal["stretch", "crop", "pad"]
Key = int | tuple[int, int]
"""Which image to fetch: its index, or (epoch, index) for an augmented variant."""


class Prepare:
    """Bring an image to a square of ``size`` pixels in [0, 1].

    Args:
        size: side of the square in pixels.
        fit: ``"stretch"`` both sides to it; ``"crop"``: short side to size · 256/224, then the
            central square (the usual ImageNet evaluation); ``"pad"``: long side to it, the rest
            black.
    """

    def __init__(self, size: int = 224, fit: Fit = "stretch") -> None:
        if size < 8:
            raise InputError("size", "at least 8 pixels", size)
        check_choice("fit", fit, ["stretch", "crop", "pad"])
        self.size = size
        self.fit = fit

    def __call__(self, image: Tensor) -> Tensor:
        """Return the image (3, H, W) as (3, size, size), float32 in [0, 1]."""
        height, width = image.shape[-2:]
        if self.fit == "stretch":
            wanted = (self.size, self.size)
        else:
            edge = min(height, width) if self.fit == "crop" else max(height, width)
            target = round(self.size * 256 / 224) if self.fit == "crop" else self.size
            wanted = (max(1, round(height * target / edge)), max(1, round(width * target / edge)))
        if wanted != (height, width):
            image = functional.resize(image, list(wanted), antialias=True)
        if self.fit != "stretch":
            image = functional.center_crop(image, [self.size, self.size])
        return image.clamp(0, 1)


class Augment:
    """A random variant of an image, the same for the same seed, epoch and index.

    Args:
        rotation: largest rotation to either side, in degrees.
        flip: probability of a horizontal flip.
        zoom: smallest and largest scale.
        brightness: largest relative change of brightness.
        seed: seed of all variants.
    """

    def __init__(
        self,
        rotation: float = 15.0,
        flip: float = 0.5,
        zoom: tuple[float, float] = (0.9, 1.1),
        brightness: float = 0.2,
        seed: int = 0,
    ) -> None:
        check_number("rotation", rotation, 0, 180)
        check_number("flip", flip, 0, 1)
        check_number("brightness", brightness, 0, 1)
        if not 0 < zoom[0] <= zoom[1] <= 10:
            raise InputError("zoom", "0 < smallest ≤ largest ≤ 10", tuple(zoom))
        self.seed = seed
        parts: list[nn.Module] = [v2.RandomHorizontalFlip(flip)]
        if rotation or zoom != (1, 1):
            bilinear = v2.InterpolationMode.BILINEAR
            parts.append(v2.RandomAffine(rotation, scale=zoom, interpolation=bilinear))
        if brightness:
            parts.append(v2.ColorJitter(brightness=brightness))
        self.transform = v2.Compose(parts)

    def __call__(self, image: Tensor, epoch: int, index: int) -> Tensor:
        """Return a variant of the image (3, H, W), float32 in [0, 1]."""
        with seeded(self.seed, "augment", epoch, index):
            variant: Tensor = self.transform(image)
        return variant.clamp(0, 1)


class Crops:
    """Random square crops of whole images, the same for the same seed, epoch and index.

    The square's side lies between the wanted size and the image's short side, so that pixels are
    left as they are or made coarser, never finer. Small squares first make a training of fully
    convolutional purifiers several times as fast.

    Args:
        sizes: side of the crops in pixels by the epoch from which on it holds; one for epoch 0.
        seed: seed of all crops.

    Raises:
        InputError: without a size for epoch 0, and for sizes under 8 pixels.
    """

    def __init__(self, sizes: Mapping[int, int], seed: int = 0) -> None:
        if min(sizes, default=1) != 0:
            raise InputError("sizes", "a side for epoch 0 and later ones", dict(sizes))
        if min(sizes.values()) < 8:
            raise InputError("sizes", "at least 8 pixels", min(sizes.values()))
        self.sizes = dict(sorted(sizes.items()))
        self.seed = seed

    def size(self, epoch: int) -> int:
        """The side of an epoch's crops in pixels."""
        return next(side for since, side in reversed(self.sizes.items()) if since <= epoch)

    def __call__(self, image: Tensor, epoch: int, index: int) -> Tensor:
        """Return a square of the image (3, H, W), float32 in [0, 1]."""
        source = generator(self.seed, "crop", epoch, index)
        size, (height, width) = self.size(epoch), image.shape[-2:]
        short = min(height, width)
        side = short if short <= size else size + _draw(short - size, source)
        top, left = _draw(height - side, source), _draw(width - side, source)
        cut: Tensor = image[:, top : top + side, left : left + side]
        if side != size:
            cut = functional.resize(cut, [size, size], antialias=True)
        return cut.clamp(0, 1)


def _draw(most: int, source: torch.Generator) -> int:
    """A whole number from 0 to ``most``."""
    return int(torch.randint(most + 1, (), generator=source))


class ImageDataset(Dataset[tuple[Tensor, int, int]]):
    """The images of a manifest, decoded when asked for.

    Args:
        manifest: which images, and the label space.
        prepare: what brings them to one size.
        augment: what varies them when a key names an epoch.
        crops: what cuts them when a key names an epoch, instead of ``prepare``.
    """

    def __init__(
        self,
        manifest: Manifest,
        prepare: Prepare,
        augment: Augment | None = None,
        crops: Crops | None = None,
    ) -> None:
        self.manifest = manifest
        self.prepare = prepare
        self.augment = augment
        self.crops = crops
        self.labels = manifest.labels()

    def __len__(self) -> int:
        return len(self.manifest.records)

    def __getitem__(self, key: Key) -> tuple[Tensor, int, int]:
        """Return image (3, side, side), class index and position in the manifest.

        Raises:
            UnreadableImage: for a file that cannot be decoded.
        """
        epoch, index = (None, key) if isinstance(key, int) else key
        image = read_image(self.manifest.records[index].path)
        if epoch is not None and self.crops is not None:
            image = self.crops(image, epoch, index)
        else:
            image = self.prepare(image)
        if epoch is not None and self.augment is not None:
            image = self.augment(image, epoch, index)
        return image, int(self.labels[index]), index


class EpochSampler(Sampler[tuple[int, int]]):
    """The order of the images in each epoch of training, a function of seed and epoch alone.

    It yields (epoch, index), by which the dataset knows which variant to make; so a training that
    is resumed sees what an undisturbed one would have seen.

    Args:
        count: number of images.
        seed: seed of all orders.
        weights: how often each image is drawn relative to the others (with replacement); by
            default each comes once.
        rank: the number of this process among those that train together.
        size: how many they are. Each gets every so manyth image of the one order; where that does
            not come out even, the first few come once more.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        weights: Tensor | None = None,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        self.count = count
        self.seed = seed
        self.weights = weights
        self.rank = rank
        self.size = size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        source = generator(self.seed, "order", self.epoch)
        if self.weights is None:
            order = torch.randperm(self.count, generator=source)
        else:
            order = torch.multinomial(self.weights, self.count, True, generator=source)
        even = order.repeat(self.size)[: len(self) * self.size] if self.size > 1 else order
        return iter([(self.epoch, int(index)) for index in even[self.rank :: self.size]])


def augmentation_figure(
    dataset: ImageDataset, path: Path, count: int = 4, variants: int = 5
) -> Path:
    """Write a figure: a few images, each with augmented variants beside it."""
    chosen = torch.randperm(len(dataset), generator=generator(0, "figure"))[:count].tolist()
    figure = Figure(figsize=(1.6 * (variants + 1), 1.75 * len(chosen)), layout="constrained")
    axes = figure.subplots(len(chosen), variants + 1, squeeze=False)
    for axis, column in zip(axes[0], range(variants + 1), strict=True):
        axis.set_title("prepared" if column == 0 else f"variant {column}", fontsize=9)
    for row, index in zip(axes, chosen, strict=True):
        pictures = [dataset[index][0]] + [dataset[(epoch, index)][0] for epoch in range(variants)]
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture.permute(1, 2, 0).numpy(), vmin=0, vmax=1)
            axis.set_axis_off()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path
