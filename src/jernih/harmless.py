"""Harmless changes: what happens to images without an attacker, each of a strength that is named.

The controls among the attacks hold an attack's bound, so that both can be compared at it. These
hold none: noise of this standard deviation, a file of this quality, whatever a pixel changes by.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from jernih import attacks
from jernih.attacks.blur import blurred
from jernih.purifiers import JPEG
from jernih.registry import Configured, Registry
from jernih.validate import InputError, check_images, check_number


class Harmless(Configured, ABC):
    """A change of images that no attacker made and that detectors had better let pass.

    A subclass writes :meth:`change`.
    """

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Change images (N, 3, H, W) in [0, 1]; same shape, clamped to [0, 1].

        Args:
            images: float32 (N, 3, H, W).
            generator: source of randomness for changes that use any.

        Raises:
            InputError: for images of another form.
        """
        return self.change(check_images(images), generator).clamp(0, 1)

    @abstractmethod
    def change(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return changed images; the base clamps them to [0, 1]."""


HARMLESS: Registry[Harmless] = Registry("harmless change")
"""All harmless changes by name."""


def format_change(change: dict[str, Any] | None) -> str:
    """A described change in a few words; None is no change at all.

    Example:
        >>> format_change(Brightness(change=-0.1).describe()), format_change(None)
        ('brightness, change -0.1', 'unchanged')
    """
    if change is None:
        return "unchanged"
    options = [f"{name} {value:g}" for name, value in change.items() if name != "name"]
    return ", ".join([str(change["name"]), *options])


@HARMLESS.register("gaussian-noise")
class GaussianNoise(Harmless):
    """Gaussian noise, independent for each pixel and channel.

    Args:
        std: its standard deviation on the scale of images in [0, 1], above 0 and at most 1.

    Raises:
        InputError: for a standard deviation out of range.
    """

    def __init__(self, std: float = 0.02) -> None:
        self.std = _strength("std", std, 1)

    def change(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return noisy images."""
        # With a bound of 1 the control's share of the bound is the standard deviation itself.
        return attacks.GaussianNoise(1.0, std=self.std).disturb(images, [1.0], generator)[0]


@HARMLESS.register("uniform-noise")
class UniformNoise(Harmless):
    """Uniform noise, independent for each pixel and channel.

    Args:
        most: the largest change of a value either way, above 0 and at most 1.

    Raises:
        InputError: for a change out of range.
    """

    def __init__(self, most: float = 0.03) -> None:
        self.most = _strength("most", most, 1)

    def change(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return noisy images."""
        return attacks.UniformNoise(self.most).disturb(images, [self.most], generator)[0]


@HARMLESS.register("salt-and-pepper")
class SaltAndPepper(Harmless):
    """Some pixels white, as many black.

    Args:
        amount: the share of pixels that change, above 0 and at most 1.

    Raises:
        InputError: for a share out of range.
    """

    def __init__(self, amount: float = 0.01) -> None:
        self.amount = _strength("amount", amount, 1)

    def change(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return images with some pixels black or white."""
        return attacks.SaltAndPepper(1.0, amount=self.amount).disturb(images, [1.0], generator)[0]


@HARMLESS.register("blur")
class Blur(Harmless):
    """Gaussian blur.

    Args:
        sigma: its standard deviation in pixels, above 0 and at most 100.

    Raises:
        InputError: for a standard deviation out of range.
    """

    def __init__(self, sigma: float = 1.0) -> None:
        self.sigma = _strength("sigma", sigma, 100)

    def change(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return blurred images."""
        return blurred(images, images.new_full((len(images),), self.sigma))


@HARMLESS.register("jpeg")
class JPEGFile(Harmless):
    """Written as a JPEG file and read again.

    Args:
        quality: Pillow's quality, a whole number in [1, 100].

    Raises:
        InputError: for a quality out of range; when called, for images without three channels.
    """

    def __init__(self, quality: int = 75) -> None:
        self.compress = JPEG(quality)

    def change(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the images as read back."""
        files: Tensor = self.compress(images)
        return files


@HARMLESS.register("brightness")
class Brightness(Harmless):
    """All values a share brighter, or darker; what exceeds white is cut.

    Args:
        change: the relative change, in [-1, 10]: 0.1 is a tenth brighter.

    Raises:
        InputError: for a change out of range, and for none.
    """

    def __init__(self, change: float = 0.1) -> None:
        if check_number("change", change, -1, 10) == 0:
            raise InputError("change", "a relative change other than 0", change)
        self.factor = 1 + change

    def change(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the images times the factor."""
        return images * self.factor


def _strength(argument: str, value: float, most: float) -> float:
    if check_number(argument, value, 0, most) == 0:
        raise InputError(argument, f"a number above 0 and at most {most:g}", value)
    return float(value)
