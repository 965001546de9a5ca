"""Square attack: random squares, kept where they help; asks for scores alone."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from jernih.attacks.base import ATTACKS, Attack
from jernih.attacks.draws import source
from jernih.attacks.losses import cross_entropy, margin
from jernih.types import Needs, Norm
from jernih.validate import check_choice, check_count, check_labels, check_logits, check_number

BOUNDS: dict[Norm, float | str] = {"linf": "8/255", "l2": 0.5}
"""The bound in each norm where none is given: those usual for CIFAR-10."""

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After which of 10,000 queries the share of the image that a square covers is halved."""


@ATTACKS.register("square")
class Square(Attack):
    r"""Square attack in L∞ or L2, black-box (Andriushchenko et al., arXiv:1912.00049).

    A random search that sees the logits and no gradient. Each query changes one square of the
    image, and the change stays if the margin of the label's logit over the others falls. The
    squares shrink: they cover a share p of the image, halved after 10, 50, 200, 500, … of 10,000
    queries, or of as many as there are, in proportion.

    L∞ starts from vertical stripes of ±ε; a square is ±2ε in each channel, cut to the ball. L2
    starts from a grid of peaked tiles; a square takes the size of the perturbation of another one,
    which is cleared, and what the bound has left.

    An image leaves the work as soon as the model is fooled. All images are tried with the same
    squares at the same time, as in the ensemble of AutoAttack (arXiv:2003.01690).

    Args:
        eps: bound on the perturbation, on the scale of images in [0, 1]; None for 8/255 in L∞ and
            0.5 in L2, as is usual for CIFAR-10.
        norm: ``"linf"`` or ``"l2"``.
        targeted: the labels passed are classes to reach; the cross-entropy is lowered then.
        queries: how many squares are tried on an image.
        share: p at the start.

    Raises:
        InputError: for another norm, no queries, or a share outside (0, 1].

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
        >>> images = torch.full((2, 3, 2, 2), 0.5)
        >>> labels, drawn = model(images).argmax(1), torch.Generator().manual_seed(0)
        >>> Square(0.5, queries=200)(model, images, labels, generator=drawn).success.tolist()
        [True, True]
    """

    reference: ClassVar[str] = "arXiv:1912.00049"
    needs: ClassVar[Needs] = "scores"

    def __init__(
        self,
        eps: float | str | None = None,
        *,
        norm: Norm = "linf",
        targeted: bool = False,
        queries: int = 5000,
        share: float = 0.8,
    ) -> None:
        check_choice("norm", norm, tuple(BOUNDS))
        self.norm = norm
        if eps is None:
            eps = self.options["eps"] = BOUNDS[norm]
        super().__init__(eps, targeted=targeted)
        self.queries = check_count("queries", queries)
        self.share = check_number("share", share, 1e-6, 1)

    def run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        eps: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return attacked images for one bound."""
        made = images.detach().clone()
        draws = source(generator)
        with torch.no_grad():
            logits = check_logits(model(made), len(made))
            check_labels(labels, len(labels), logits.shape[1])
            search = (_LinfSearch if self.norm == "linf" else _L2Search)(images, eps, draws)
            left = (~self.fooled(logits, labels)).nonzero().squeeze(1)
            search.keep(left)
            if len(left) == 0:
                return made
            made[left] = search.best
            lowest = torch.full_like(logits[left, 0], torch.inf)
            for query in range(-1, self.queries):  # the first asks about the start
                tried = search.best if query < 0 else search.propose(self.portion(query), draws)
                logits = check_logits(model(tried), len(tried))
                values = self._value(logits, labels[left])
                fooled = self.fooled(logits, labels[left])
                better = (values < lowest) | fooled
                lowest = torch.where(better, values, lowest)
                search.accept(better, tried)
                if bool(fooled.any()):
                    made[left[fooled]] = tried[fooled]
                    going = (~fooled).nonzero().squeeze(1)
                    left, lowest = left[going], lowest[going]
                    search.keep(going)
                    if len(left) == 0:
                        break
            made[left] = search.best
        return made

    def portion(self, query: int) -> float:
        """The share of the image that the square of a query (from 0 on) covers."""
        scaled = int(query / self.queries * 10_000)
        return float(self.share / 2 ** sum(scaled > after for after in HALVINGS))

    def _value(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What to lower, for each image (N,)."""
        return cross_entropy(logits, labels) if self.targeted else -margin(logits, labels)


class _Search:
    """Where the search stands: a row for each image still at work.

    Attributes:
        images: the images as they were.
        best: the attacked images so far.
        rows: their places in the batch, which choose their random numbers.
        count: how many images the batch had.
    """

    def __init__(self, images: Tensor, eps: float, draws: torch.Generator) -> None:
        self.images, self.eps = images, eps
        self.count = len(images)
        self.rows = torch.arange(len(images), device=images.device)
        self.best = self._start(draws)

    def _start(self, draws: torch.Generator) -> Tensor:
        raise NotImplementedError

    def propose(self, share: float, draws: torch.Generator) -> Tensor:
        """Attacked images with one square changed."""
        raise NotImplementedError

    def accept(self, better: Tensor, tried: Tensor) -> None:
        """Take over those of the images proposed that are better."""
        self.best = torch.where(better.view(-1, 1, 1, 1), tried, self.best)

    def keep(self, which: Tensor) -> None:
        """Go on with some of the images."""
        self.images, self.best = self.images[which], self.best[which]
        self.rows = self.rows[which]

    def _signs(self, shape: tuple[int, ...], draws: torch.Generator) -> Tensor:
        """±1 in the shape given, drawn on the CPU."""
        return (torch.randint(0, 2, shape, generator=draws) * 2 - 1).to(self.images)

    def _corner(self, side: int, draws: torch.Generator) -> tuple[slice, slice]:
        """A square somewhere in the image."""
        height, width = self.images.shape[-2:]
        share = torch.rand(2, generator=draws)
        top, left = int(share[0] * (height - side)), int(share[1] * (width - side))
        return slice(top, top + side), slice(left, left + side)

    def _side(self, share: float, least: int) -> int:
        height, width = self.images.shape[-2:]
        return min(max(round(math.sqrt(share * height * width)), least), height, width)


class _LinfSearch(_Search):
    def _start(self, draws: torch.Generator) -> Tensor:
        _, channels, _, width = self.images.shape
        stripes = self._signs((self.count, channels, 1, width), draws)
        return (self.images + self.eps * stripes).clamp(0, 1)

    def propose(self, share: float, draws: torch.Generator) -> Tensor:
        side = self._side(share, 1)
        square = (..., *self._corner(side, draws))
        change = 2 * self.eps * self._signs((self.images.shape[1], 1, 1), draws)
        around, tried = self.images[square], self.best.clone()
        tried[square] = (
            (tried[square] + change).clamp(around - self.eps, around + self.eps).clamp(0, 1)
        )
        return tried


class _L2Search(_Search):
    def _start(self, draws: torch.Generator) -> Tensor:
        _, channels, height, width = self.images.shape
        delta = torch.zeros_like(self.images)
        side = max(min(height, width) // 5, 1)
        tops = range((height - side * (height // side)) // 2, height - side + 1, side)
        lefts = range((width - side * (width // side)) // 2, width - side + 1, side)
        for top in tops:
            for left in lefts:
                signs = self._signs((self.count, channels, 1, 1), draws)
                tile = self._tile(side, draws)
                delta[..., top : top + side, left : left + side] += tile * signs
        return self._at(delta)

    def propose(self, share: float, draws: torch.Generator) -> Tensor:
        side = self._side(share, 3)
        side -= side % 2 == 0 and side == min(self.images.shape[-2:])
        side += side % 2 == 0
        channels = self.images.shape[1]
        square, other = (..., *self._corner(side, draws)), (..., *self._corner(side, draws))
        tile = self._tile(side, draws) * self._signs((self.count, channels, 1, 1), draws)[self.rows]
        delta = self.best - self.images
        both = torch.zeros_like(delta[:1])
        both[square] = both[other] = 1
        spare = (self.eps**2 - _squares(delta)).clamp_min(0) / channels + _squares(delta * both)
        old = delta[square]
        new = tile + old / (1e-12 + old.square().sum((-2, -1), keepdim=True).sqrt())
        new = new / (1e-12 + new.square().sum((-2, -1), keepdim=True).sqrt()) * spare.sqrt()
        delta[other] = 0
        delta[square] = new
        return self._at(delta)

    def _at(self, delta: Tensor) -> Tensor:
        """The images moved by ε along ``delta``."""
        return (self.images + delta * (self.eps / (1e-12 + _squares(delta).sqrt()))).clamp(0, 1)

    def _tile(self, side: int, draws: torch.Generator) -> Tensor:
        """A square (side, side) of length 1: a peak in one half, a trough in the other."""
        upper = side // 2
        tile = torch.cat([_peak(upper, side), -_peak(side - upper, side)])
        tile = tile / tile.square().sum().sqrt().clamp_min(1e-12)
        lying = bool(torch.rand((), generator=draws) > 0.5)
        return (tile.T if lying else tile).to(self.images)


def _squares(delta: Tensor) -> Tensor:
    """Squared length of each image, (N, 1, 1, 1)."""
    return delta.square().sum((1, 2, 3), keepdim=True)


def _peak(height: int, width: int) -> Tensor:
    """A pyramid (height, width) of length 1: rings around the middle add 1, 1/4, 1/9 and so on."""
    peak = torch.zeros(height, width)
    top, left = height // 2, width // 2
    for ring in range(max(top, left) + 1):
        rows = slice(max(top - ring, 0), min(top + ring + 1, height))
        columns = slice(max(left - ring, 0), min(left + ring + 1, width))
        peak[rows, columns] += 1 / (ring + 1) ** 2
    return peak / peak.square().sum().sqrt().clamp_min(1e-12)
