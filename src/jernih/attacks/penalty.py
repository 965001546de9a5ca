"""What attacks share that weigh the size of a perturbation against a hinge on the logits."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

import torch
from torch import Tensor, nn

from jernih.attacks.asking import ask
from jernih.attacks.base import MinimumNorm
from jernih.attacks.losses import margin
from jernih.validate import InputError, check_labels, check_number

EDGE = 0.9
"""How much of the range of tanh the pixels take up."""


class Penalised(MinimumNorm):
    """A search that leaves out the images that fool the model as they are.

    A subclass sets ``confidence`` in its constructor and writes :meth:`minimise`.
    """

    confidence: float

    @abstractmethod
    def minimise(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Return what :meth:`search` does, for images none of which fools the model as it is."""

    def search(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return the nearest adversarial images found; where none was found, the image itself."""
        logits = ask(model, images)
        check_labels(labels, len(labels), logits.shape[1])
        todo = ~self.fooled(logits, labels, self.confidence)
        found = images.clone()
        if bool(todo.any()):
            found[todo] = self.minimise(model, images[todo], labels[todo])
        return found


def hinge(logits: Tensor, labels: Tensor, targeted: bool, confidence: float) -> Tensor:
    """How far (N,) each image is from fooling the model by ``confidence``; 0 once it does.

    Source: the function f₆ of Carlini & Wagner, arXiv:1608.04644.
    """
    ahead = margin(logits, labels) if targeted else -margin(logits, labels)
    return (ahead + confidence).clamp_min(0)


def to_tanh(images: Tensor) -> Tensor:
    """The w at which :func:`from_tanh` gives these images."""
    return torch.atanh((2 * images - 1) * EDGE)


def from_tanh(w: Tensor) -> Tensor:
    """Images in [0, 1] from any w: tanh, scaled so that it reaches black and white at a finite w.

    The published change of variables reaches them at infinity alone, where its slope is zero:
    such pixels never move. Here the slope at the ends is a fifth of that in the middle, and what
    lies beyond is cut without cutting its gradient.
    """
    images = (torch.tanh(w) / EDGE + 1) / 2
    return images + (images.clamp(0, 1) - images).detach()


class Adam:
    """Adam (Kingma & Ba, arXiv:1412.6980) whose images can leave one by one.

    ``torch.optim.Adam`` keeps its state for one tensor of fixed shape, and one rate.

    Args:
        like: the variables (N, C, H, W).
        rates: the learning rate of each image (N,).
    """

    def __init__(self, like: Tensor, rates: Tensor) -> None:
        self.rates = rates.view(-1, 1, 1, 1)
        self.first, self.second = torch.zeros_like(like), torch.zeros_like(like)
        self.count = 0

    def step(self, gradient: Tensor) -> Tensor:
        """What to add to the variables."""
        self.count += 1
        self.first.lerp_(gradient, 0.1)
        self.second.lerp_(gradient.square(), 0.001)
        scale = (self.second / (1 - 0.999**self.count)).sqrt_().add_(1e-8)
        return self.first / scale * (-self.rates / (1 - 0.9**self.count))

    def keep(self, rows: Tensor) -> Self:
        """Forget the images that are not among ``rows``, a mask."""
        self.first, self.second = self.first[rows], self.second[rows]
        self.rates = self.rates[rows]
        return self


class Weights:
    """A search over the weight c of the hinge, for each image by itself.

    Ten times as much while an image is not fooled, then halving the interval between the largest
    weight that failed and the smallest that did not.

    Args:
        like: a tensor (N,) of the kind wanted.
        initial: the first weight.
        searches: how many weights are tried. From ten on the last one is the smallest that is
            known to work, as in the authors' code.
    """

    def __init__(self, like: Tensor, initial: float, searches: int) -> None:
        self.now = torch.full_like(like, initial)
        self.low, self.high = torch.zeros_like(self.now), torch.full_like(self.now, torch.inf)
        self.left = searches - 1
        self.repeats = searches >= 10

    def update(self, found: Tensor) -> None:
        """Choose the next weights, given which images (N,) the present ones fooled."""
        self.high = torch.where(found, torch.minimum(self.high, self.now), self.high)
        self.low = torch.where(found, self.low, torch.maximum(self.low, self.now))
        known = self.high.isfinite()
        self.now = torch.where(known, (self.low + self.high) / 2, self.now * 10)
        self.left -= 1
        if self.left == 0 and self.repeats:
            self.now = torch.where(known, self.high, self.now)
        self.now = self.now.clamp_max(1e10)


class Progress:
    """Tells which images still get better: a check at every tenth of the steps, or at every 20.

    An image has stopped when its least loss since the last check is not below the one before by a
    ten-thousandth. Each image is judged by itself, so that its batch does not matter. In fewer than
    20 steps Adam, whose memory is ten, may still be on its way back from having gone too far.
    """

    def __init__(self, like: Tensor, steps: int) -> None:
        self.every = max(-(-steps // 10), 20)
        self.least, self.before = torch.full_like(like, torch.inf), torch.full_like(like, torch.inf)

    def better(self, step: int, losses: Tensor) -> Tensor | None:
        """Note the losses (n,) of the images left; at a check, return which go on."""
        self.least = torch.minimum(self.least, losses)
        if step % self.every != 0:
            return None
        going = self.least < 0.9999 * self.before
        self.before = self.least
        return going

    def keep(self, rows: Tensor) -> Self:
        """Forget the images that are not among ``rows``, a mask."""
        self.least, self.before = self.least[rows], self.before[rows]
        return self


def check_positive(argument: str, value: float, high: float = 1e10) -> float:
    """Return ``value`` if it is above 0 and at most ``high``.

    Raises:
        InputError: otherwise.
    """
    if check_number(argument, value, 0, high) == 0:
        raise InputError(argument, "a number above 0", value)
    return float(value)
