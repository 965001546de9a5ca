"""SimBA: one direction of a basis after the other, kept where it helps."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from jernih.attacks.base import ATTACKS, UNBOUNDED, Attack
from jernih.attacks.draws import source
from jernih.types import Needs, Norm
from jernih.validate import check_choice, check_count, check_labels, check_logits, check_number

Basis = Literal["pixel", "dct"]


@ATTACKS.register("simba")
class SimBA(Attack):
    """Simple black-box attack, in L2 (Guo et al., arXiv:1905.07121).

    Sees the probabilities and no gradient. Directions of an orthonormal basis are tried in random
    order, each once before the first comes again: a step forwards, if that does not lower the
    probability of the label (raise that of the class to reach) a step backwards, else none. After
    k steps in k directions the perturbation is √k steps long.

    The basis is that of single values (``"pixel"``) or of two-dimensional cosines (``"dct"``), of
    which only the slowest are used: perturbations of low frequency fool models more easily.

    Args:
        eps: bound on the perturbation in L2; None for any that the directions allow. A step that
            would leave the ball is not taken.
        targeted: the labels passed are classes to reach.
        queries: how often to ask about an image, at most; each direction takes one or two.
        step: length of a step, on the scale of images in [0, 1].
        basis: ``"pixel"`` or ``"dct"``.
        frequencies: how many cosines a side for ``"dct"``, as a share of the image's side.

    Raises:
        InputError: for an unknown basis, no queries, or a step or share outside (0, 1].

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
        >>> images = torch.full((2, 3, 2, 2), 0.5)
        >>> labels, drawn = model(images).argmax(1), torch.Generator().manual_seed(0)
        >>> attack = SimBA(basis="pixel", step=0.5)
        >>> attack(model, images, labels, generator=drawn).success.tolist()
        [True, True]
    """

    reference: ClassVar[str] = "arXiv:1905.07121"
    needs: ClassVar[Needs] = "scores"
    norm: Norm = "l2"

    def __init__(
        self,
        eps: float | str | None = None,
        *,
        targeted: bool = False,
        queries: int = 5000,
        step: float = 0.2,
        basis: Basis = "dct",
        frequencies: float = 0.125,
    ) -> None:
        super().__init__(UNBOUNDED if eps is None else eps, targeted=targeted)
        self.queries = check_count("queries", queries)
        self.step = check_number("step", step, 1e-6, 1)
        check_choice("basis", basis, get_args(Basis))
        self.basis: Basis = basis
        self.frequencies = check_number("frequencies", frequencies, 1e-6, 1)

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
            logits = check_logits(model(images), len(images))
            check_labels(labels, len(images), logits.shape[1])
            odds = self._odds(logits, labels)
            left = (~self.fooled(logits, labels)).nonzero().squeeze(1)
            orders = self._orders(images, source(generator))
            asked = torch.ones_like(labels)
            for turn in range(orders.shape[1]):
                left = left[asked[left] < self.queries]
                if len(left) == 0:
                    break
                way = self.step * self._directions(orders[left, turn], images)
                waiting = left
                for sign in (1, -1):
                    tried = (made[waiting] + sign * way).clamp(0, 1)
                    far = (tried - images[waiting]).flatten(1).norm(dim=1)
                    logits = check_logits(model(tried), len(tried))
                    asked[waiting] += 1
                    now = self._odds(logits, labels[waiting])
                    better = (now > odds[waiting]) & (far <= eps)
                    taken = waiting[better]
                    made[taken], odds[taken] = tried[better], now[better]
                    done = waiting[better & self.fooled(logits, labels[waiting])]
                    left = left[~torch.isin(left, done)]
                    waiting, way = waiting[~better], way[~better]
                    if len(waiting) == 0:
                        break
        return made

    def _odds(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What to raise, for each image (N,)."""
        own = logits.log_softmax(1).gather(1, labels[:, None]).squeeze(1)
        return own if self.targeted else -own

    def _sides(self, images: Tensor) -> tuple[int, int]:
        """How many directions there are along each side."""
        height, width = images.shape[-2:]
        if self.basis == "pixel":
            return height, width
        return math.ceil(self.frequencies * height), math.ceil(self.frequencies * width)

    def _orders(self, images: Tensor, draws: torch.Generator) -> Tensor:
        """The directions' numbers in random order, again and again, a row for each image."""
        high, wide = self._sides(images)
        count = images.shape[1] * high * wide
        rounds = math.ceil(self.queries / count)
        rows = [
            torch.cat([torch.randperm(count, generator=draws) for _ in range(rounds)])
            for _ in range(len(images))
        ]
        return torch.stack([row[: self.queries] for row in rows]).to(images.device)

    def _directions(self, numbers: Tensor, images: Tensor) -> Tensor:
        """Unit directions (n, C, H, W) by their numbers (n,)."""
        channels, height, width = images.shape[1:]
        high, wide = self._sides(images)
        channel, place = numbers // (high * wide), numbers % (high * wide)
        row, column = place // wide, place % wide
        across, along = _wave(row, height, self.basis), _wave(column, width, self.basis)
        chosen = torch.nn.functional.one_hot(channel, channels).to(images)
        return (
            chosen[:, :, None, None]
            * across.to(images)[:, None, :, None]
            * along.to(images)[:, None, None, :]
        )


def _wave(number: Tensor, size: int, basis: Basis) -> Tensor:
    """Vectors (n, size) of length 1: a single value, or a cosine of the DCT (type II)."""
    places = torch.arange(size, device=number.device)
    if basis == "pixel":
        return (places == number[:, None]).float()
    wave = torch.cos(math.pi / size * (places + 0.5) * number[:, None])
    unit: Tensor = wave / wave.norm(dim=1, keepdim=True)
    return unit
