"""SimBA: one direction of a basis after the other, kept where it helps."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from jernih.attacks.asking import ask
from jernih.attacks.base import ATTACKS, UNBOUNDED, Attack
from jernih.attacks.draws import source
from jernih.attacks.losses import log_odds
from jernih.types import Needs, Norm
from jernih.validate import check_choice, check_count, check_labels, check_number

Basis = Literal["pixel", "dct"]
Order = Literal["random", "diagonal", "strided"]


@ATTACKS.register("simba")
class SimBA(Attack):
    """Simple black-box attack, in L2 (Guo et al., arXiv:1905.07121).

    Sees the probabilities and no gradient. Directions of an orthonormal basis are tried one after
    the other, each once before the first comes again: a step forwards, if that does not lower the
    probability of the label (raise that of the class to reach) a step backwards, else none. After
    k steps in k directions the perturbation is √k steps long.

    The basis is that of single values (``"pixel"``) or of two-dimensional cosines (``"dct"``), of
    which the slowest come first: perturbations of low frequency fool models more easily. The model
    is not asked about a step that changes nothing, or that would leave the ball.

    Args:
        eps: bound on the perturbation in L2; None for any that the directions allow.
        targeted: the labels passed are classes to reach.
        queries: how often to ask about an image, at most; each direction takes one or two.
        step: length of a step, on the scale of images in [0, 1].
        basis: ``"pixel"`` or ``"dct"``.
        frequencies: how many cosines a side for ``"dct"``, as a share of the image's side.
        order: ``"random"``: those cosines alone, in random order. Two orders for ``"dct"`` take
            all: ``"strided"`` begins with those, in random order, and widens the block by a stride
            each time that it is through; ``"diagonal"`` goes by the sum of the two frequencies, in
            random order where it is the same, and makes no use of ``frequencies``.
        stride: by how many cosines a side the block widens; None for a quarter of its first side,
            as the authors do.

    Raises:
        InputError: for an unknown basis or order, another order than ``"random"`` with
            ``"pixel"``, no queries or stride, or a step or share outside (0, 1].

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
        order: Order = "random",
        stride: int | None = None,
    ) -> None:
        super().__init__(UNBOUNDED if eps is None else eps, targeted=targeted)
        self.queries = check_count("queries", queries)
        self.step = check_number("step", step, 1e-6, 1)
        check_choice("basis", basis, get_args(Basis))
        self.basis: Basis = basis
        self.frequencies = check_number("frequencies", frequencies, 1e-6, 1)
        check_choice("order", order, get_args(Order) if basis == "dct" else ("random",))
        self.order: Order = order
        self.stride = None if stride is None else check_count("stride", stride)

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
            logits = ask(model, images)
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
                    before = made[waiting]
                    tried = (before + sign * way).clamp(0, 1)
                    far = (tried - images[waiting]).flatten(1).norm(dim=1)
                    worth = (far <= eps) & (tried != before).flatten(1).any(1)
                    worth &= asked[waiting] < self.queries
                    asking, tried = waiting[worth], tried[worth]
                    if len(asking) == 0:
                        continue
                    logits = ask(model, tried)
                    asked[asking] += 1
                    now = self._odds(logits, labels[asking])
                    better = now > odds[asking]
                    taken = asking[better]
                    made[taken], odds[taken] = tried[better], now[better]
                    done = asking[better & self.fooled(logits, labels[asking])]
                    left = left[~torch.isin(left, done)]
                    rest = ~torch.isin(waiting, taken)
                    waiting, way = waiting[rest], way[rest]
                    if len(waiting) == 0:
                        break
        return made

    def _odds(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What to raise, for each image (N,): log odds, which rise and fall with the probability.

        A sure model's probabilities are 1 in float32, and no step would seem to help.
        """
        odds = log_odds(logits, labels)
        return -odds if self.targeted else odds

    def _sides(self, images: Tensor) -> tuple[int, int]:
        """How many directions there are along each side."""
        height, width = images.shape[-2:]
        if self.basis == "pixel" or self.order != "random":
            return height, width
        return self._block(height), self._block(width)

    def _block(self, size: int) -> int:
        """How many cosines along a side of ``size`` come first."""
        return math.ceil(self.frequencies * size)

    def _orders(self, images: Tensor, draws: torch.Generator) -> Tensor:
        """The directions' numbers in order, again and again, a row for each image."""
        high, wide = self._sides(images)
        count = images.shape[1] * high * wide
        rounds = math.ceil(self.queries / count)
        ranks = self._ranks(high, wide).repeat(images.shape[1])

        def one_round() -> Tensor:
            shuffled = torch.randperm(count, generator=draws)
            return shuffled[ranks[shuffled].argsort(stable=True)]

        rows = [torch.cat([one_round() for _ in range(rounds)]) for _ in range(len(images))]
        return torch.stack([row[: self.queries] for row in rows]).to(images.device)

    def _ranks(self, high: int, wide: int) -> Tensor:
        """Which directions (high · wide,) of a channel come first; equals are shuffled."""
        down, across = torch.arange(high)[:, None], torch.arange(wide)[None, :]
        if self.order == "random":
            return torch.zeros(high * wide, dtype=torch.int64)
        if self.order == "diagonal":
            return (down + across).flatten()
        beyond = torch.maximum(down - self._block(high), across - self._block(wide))
        stride = self.stride or max(min(self._block(high), self._block(wide)) // 4, 1)
        return (beyond // stride).clamp_min(-1).flatten()

    def _directions(self, numbers: Tensor, images: Tensor) -> Tensor:
        """Unit directions (n, C, H, W) by their numbers (n,)."""
        channels, height, width = images.shape[1:]
        high, wide = self._sides(images)
        channel, place = numbers // (high * wide), numbers % (high * wide)
        row, column = place // wide, place % wide
        across, along = _wave(row, height, self.basis), _wave(column, width, self.basis)
        chosen = functional.one_hot(channel, channels).to(images)
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
