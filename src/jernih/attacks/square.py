"""Square attack: random squares, kept where they help; asks for scores alone."""

from __future__ import annotations

import functools
import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from jernih.attacks.asking import ask
from jernih.attacks.base import ATTACKS, Attack
from jernih.attacks.draws import streams
from jernih.attacks.losses import cross_entropy, margin
from jernih.types import Needs, Norm
from jernih.validate import check_choice, check_count, check_labels, check_number

BOUNDS: dict[Norm, float | str] = {"linf": "8/255", "l2": 0.5}
"""The bound in each norm where none is given: those usual for CIFAR-10."""

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After which of 10,000 queries the share of the image that a square covers is halved."""

AHEAD = 256
"""For how many queries random numbers are drawn at once."""


@ATTACKS.register("square")
class Square(Attack):
    r"""Square attack in L∞ or L2, black-box (Andriushchenko et al., arXiv:1912.00049).

    A random search that sees the logits and no gradient. Each query changes one square of the
    image, and the change stays if the margin of the label's logit over the others falls. The
    squares shrink: they cover a share p of the image, halved after 10, 50, 200, 500, … of 10,000
    queries, or of as many as there are, in proportion.

    L∞ starts from vertical stripes of ±ε; a square becomes ε or -ε in each channel. L2 starts from
    a grid of peaked tiles; in each channel a square takes the size of the perturbation of another
    one, which is cleared, and its part of what the bound has left.

    An image leaves the work as soon as the model is fooled. Each image has squares of its own, as
    in the paper; in the ensemble of AutoAttack (arXiv:2003.01690) a batch shares them, no square
    reaches the last row or column, and in L2 a channel takes what all channels had. A square that
    would change nothing counts as a query, but the model is not asked again.

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
        with torch.no_grad():
            logits = ask(model, made)
            check_labels(labels, len(labels), logits.shape[1])
            left = (~self.fooled(logits, labels)).nonzero().squeeze(1)
            if eps == 0 or len(left) == 0:
                return made
            generators = streams(len(images), generator)
            search = (_LinfSearch if self.norm == "linf" else _L2Search)(
                made[left], eps, [generators[row] for row in left.tolist()]
            )
            lowest = torch.full_like(logits[left, 0], torch.inf)
            tried, asked = search.best.clone(), torch.arange(len(left), device=left.device)
            for query in range(self.queries + 1):
                if len(asked):
                    wanted = labels[left[asked]]
                    logits = ask(model, tried)
                    values, fooled = self._value(logits, wanted), self.fooled(logits, wanted)
                    better = (values < lowest[asked]) | fooled
                    lowest[asked[better]] = values[better]
                    search.best[asked[better]] = tried[better]
                    if bool(fooled.any()):
                        done = asked[fooled]
                        made[left[done]] = search.best[done]
                        going = torch.ones_like(left, dtype=torch.bool)
                        going[done] = False
                        left, lowest = left[going], lowest[going]
                        search.keep(going)
                        if len(left) == 0:
                            break
                if query < self.queries:
                    tried, asked = search.propose(self.portion(query))
            made[left] = search.best
        return made

    def portion(self, query: int) -> float:
        """The share of the image that the square of a query (from 0 on) covers."""
        scaled = query * 10_000 // self.queries
        return float(self.share / 2 ** sum(scaled > after for after in HALVINGS))

    def _value(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What to lower, for each image (N,)."""
        return cross_entropy(logits, labels) if self.targeted else -margin(logits, labels)


class _Search:
    """Where the search stands: a row for each image still at work.

    Attributes:
        images: the images as they were.
        best: the attacked images so far.
    """

    def __init__(self, images: Tensor, eps: float, draws: list[torch.Generator]) -> None:
        self.images, self.eps, self._draws = images, eps, draws
        self._stock, self._spent = torch.empty(0), AHEAD
        self._grid = torch.arange(max(images.shape), device=images.device)
        self.best = self._start()

    def _start(self) -> Tensor:
        raise NotImplementedError

    def propose(self, share: float) -> tuple[Tensor, Tensor]:
        """Attacked images with one square changed, and the rows that they belong to."""
        raise NotImplementedError

    def keep(self, going: Tensor) -> None:
        """Go on with some of the images."""
        self.images, self.best = self.images[going], self.best[going]
        self._draws = [draw for draw, on in zip(self._draws, going.tolist(), strict=True) if on]
        self._stock = self._stock[going] if self._spent < AHEAD else self._stock

    def _draw(self, *shape: int) -> Tensor:
        """Numbers in [0, 1) in the shape given for each image, drawn on the CPU."""
        return torch.stack([torch.rand(shape, generator=g) for g in self._draws]).to(self.images)

    def _next(self, count: int) -> Tensor:
        """The numbers (N, ``count``) of the next query, which always has as many."""
        if self._spent == AHEAD:
            self._stock, self._spent = self._draw(AHEAD, count), 0
        self._spent += 1
        return self._stock[:, self._spent - 1]

    def _square(self, drawn: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The indices of a square of each image, at a place that two numbers (N, 2) choose."""
        count, channels, height, width = self.images.shape
        room = torch.tensor([_room(height, side), _room(width, side)], device=drawn.device)
        corner = torch.minimum((drawn * (room + 1)).long(), room)  # the product may round up
        places = corner[:, :, None] + self._grid[:side]
        return (
            self._grid[:count, None, None, None],
            self._grid[:channels, None, None],
            places[:, 0, None, :, None],
            places[:, 1, None, None, :],
        )

    def _side(self, share: float, least: int) -> int:
        height, width = self.images.shape[-2:]
        return min(max(round(math.sqrt(share * height * width)), least), height, width)


class _LinfSearch(_Search):
    def _start(self) -> Tensor:
        _, channels, _, width = self.images.shape
        return (self.images + self.eps * _signs(self._draw(channels, 1, width))).clamp(0, 1)

    def propose(self, share: float) -> tuple[Tensor, Tensor]:
        drawn = self._next(2 + self.images.shape[1])
        square = self._square(drawn[:, :2], self._side(share, 1))
        made = (self.images[square] + self.eps * _signs(drawn[:, 2:, None, None])).clamp(0, 1)
        changed = (made != self.best[square]).flatten(1).any(1)
        tried = self.best.clone()
        tried[square] = made
        return tried[changed], changed.nonzero().squeeze(1)


class _L2Search(_Search):
    def _start(self) -> Tensor:
        count, channels, height, width = self.images.shape
        side = max(min(height, width) // 5, 1)
        high, wide = height // side, width // side
        drawn = self._draw(high, wide, channels + 1)
        tiles = self._tiles(side, drawn.flatten(0, 2)).view(count, high, wide, channels, side, side)
        delta = torch.zeros_like(self.images)
        top, left = (height - high * side) // 2, (width - wide * side) // 2
        delta[..., top : top + high * side, left : left + wide * side] = tiles.permute(
            0, 3, 1, 4, 2, 5
        ).reshape(count, channels, high * side, wide * side)
        return self._at(delta)

    def propose(self, share: float) -> tuple[Tensor, Tensor]:
        count, channels, height, width = self.images.shape
        side = self._side(share, 3)
        if side % 2 == 0:
            side += 1 if side < min(height, width) else -1
        drawn = self._next(5 + channels)
        square, other = self._square(drawn[:, :2], side), self._square(drawn[:, 2:4], side)
        delta = self.best - self.images
        room = (self.eps**2 - _squares(delta)).clamp_min(0) / channels
        old = delta[square]
        length = _squares(old, 2)
        delta[square] = 0
        room = room + length + _squares(delta[other], 2)
        delta[other] = 0
        new = self._tiles(side, drawn[:, 4:]) + old / (1e-12 + length.sqrt())
        delta[square] = new * (room.sqrt() / (1e-12 + _squares(new, 2).sqrt()))
        return self._at(delta), self._grid[:count]

    def _at(self, delta: Tensor) -> Tensor:
        """The images moved by ε along ``delta``."""
        return (self.images + delta * (self.eps / (1e-12 + _squares(delta).sqrt()))).clamp(0, 1)

    def _tiles(self, side: int, drawn: Tensor) -> Tensor:
        """A tile (n, C, side, side) for each row of numbers (n, 1 + C): its turn and its signs."""
        tile = _tile(side).to(drawn)
        turned = torch.where(drawn[:, :1, None, None] < 0.5, tile, tile.T)
        return turned * _signs(drawn[:, 1:, None, None])


def _room(size: int, side: int) -> int:
    """How far from the first place along an axis a square can begin."""
    return size - side


def _signs(drawn: Tensor) -> Tensor:
    """±1 from numbers in [0, 1)."""
    return torch.where(drawn < 0.5, -1.0, 1.0).to(drawn)


@functools.lru_cache(maxsize=32)
def _tile(side: int) -> Tensor:
    """A square (side, side) of length 1: a peak in one half, a trough in the other."""
    upper = side // 2
    tile = torch.cat([_peak(upper, side), -_peak(side - upper, side)])
    unit: Tensor = tile / tile.square().sum().sqrt().clamp_min(1e-12)
    return unit


def _squares(delta: Tensor, start: int = 1) -> Tensor:
    """Squared length over the dimensions from ``start`` on: of images, or of channels with 2."""
    return delta.square().sum(tuple(range(start, 4)), keepdim=True)


def _peak(height: int, width: int) -> Tensor:
    """A pyramid (height, width) of length 1: rings around the middle add 1, 1/4, 1/9 and so on."""
    peak = torch.zeros(height, width)
    top, left = height // 2, width // 2
    for ring in range(max(top, left) + 1):
        rows = slice(max(top - ring, 0), min(top + ring + 1, height))
        columns = slice(max(left - ring, 0), min(left + ring + 1, width))
        peak[rows, columns] += 1 / (ring + 1) ** 2
    return peak / peak.square().sum().sqrt().clamp_min(1e-12)
