"""JSMA, the Jacobian-based saliency map attack: few pixels, changed a lot."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from jernih.attacks.base import ATTACKS, MinimumNorm
from jernih.attacks.gradients import gradients
from jernih.types import Norm
from jernih.validate import (
    InputError,
    check_choice,
    check_count,
    check_labels,
    check_logits,
    check_number,
)

Saliency = Literal["probability", "product", "target"]
BLOCK = 2**22
"""Pairs whose saliency is computed at once."""


@ATTACKS.register("jsma")
class JSMA(MinimumNorm):
    r"""Jacobian-based saliency map attack (Papernot et al., arXiv:1511.07528).

    Changes the two values (one channel of one pixel each) that matter most by θ, and again, until
    the model is fooled. With α the sum of both values' derivatives of the model's output for the
    target class and β that of the outputs for all others, the pair with the largest :math:`-α β`
    of those with α > 0 > β matters most (α < 0 < β when θ is negative).

    The attack goes for few changed values; it knows no bound. Its perturbations are measured in L1,
    which for θ = ±1 is at most the number of values changed. An image for which nothing fit is left
    to change, or that would need too many values, stays clean.

    Args:
        eps: largest perturbation in L1 that counts; None for any.
        targeted: the labels passed are classes to reach. If not, the class to reach is the most
            likely wrong one on the clean image, and any wrong class will do.
        theta: θ, the change of a value in a step, between -1 and 1 and not 0.
        gamma: share of the values that may change, in [0, 1]. The paper allows 0.145.
        at_once: number of values to change in a step. Each step takes a gradient or two and asks
            the model once, so large images want more than the paper's two.
        saliency: what the outputs are. ``"probability"``: the softmax's. They add up to one, so β
            is -α, and what counts is the derivative of the target's log-odds. ``"product"``: the
            logits, as in torchattacks and cleverhans. ``"target"``: the target's logit, with β left
            out, as in ART. Between two classes all go by the difference of the logits. The first
            changes the fewest values; the second may leave an image without any pair that is fit.

    Raises:
        InputError: for numbers outside their ranges, and another saliency.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(4, 2)
        >>> layer.weight.data = torch.tensor([[0.0, 0, 0, 0], [0, 5, 1, 4]])
        >>> layer.bias.data = torch.tensor([6.0, 0])
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), layer).eval()
        >>> attack = JSMA(gamma=0.5)  # two of the four values
        >>> result = attack(model, torch.zeros(1, 1, 2, 2), torch.tensor([0]))
        >>> result.images.flatten().tolist(), bool(result.success)
        ([0.0, 1.0, 0.0, 1.0], True)
    """

    norm: Norm = "l1"
    reference: ClassVar[str] = "arXiv:1511.07528"

    def __init__(
        self,
        eps: float | str | None = None,
        *,
        targeted: bool = False,
        theta: float = 1.0,
        gamma: float = 0.145,
        at_once: int = 2,
        saliency: Saliency = "probability",
    ) -> None:
        super().__init__(eps, targeted=targeted)
        self.theta = check_number("theta", theta, -1, 1)
        if abs(self.theta) < 1e-3:
            raise InputError("theta", "a change of at least 0.001", theta)
        self.gamma = check_number("gamma", gamma, 0, 1)
        self.at_once = check_count("at_once", at_once)
        check_choice("saliency", saliency, get_args(Saliency))
        self.saliency = saliency

    def search(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return images with few values changed; where that did not do, the image itself."""
        moved, made = images.clone(), images.clone()
        changed = torch.zeros_like(images, dtype=torch.bool).flatten(1)
        budget = int(self.gamma * changed.shape[1] + 1e-6)
        active = torch.arange(len(images), device=images.device)
        targets = labels
        first = True
        while len(active):
            leaf = moved[active].requires_grad_(True)
            logits = check_logits(model(leaf), len(leaf))
            if first:
                check_labels(labels, len(labels), logits.shape[1])
                own = functional.one_hot(labels, logits.shape[1]).bool()
                if not self.targeted:
                    targets = logits.detach().masked_fill(own, -torch.inf).argmax(1)
                first = False
            fooled = self.fooled(logits.detach(), labels[active])
            made[active[fooled]] = moved[active[fooled]]
            if bool(fooled.all()):
                break
            up, down = self._derivatives(logits, leaf, targets[active])
            values = leaf.detach().flatten(1)
            free = (values < 1 if self.theta > 0 else values > 0) & ~fooled[:, None]
            pick = self._picks(up, down, free)
            used = changed[active] | pick
            going = pick.any(1) & (used.sum(1) <= budget)
            active, pick, values = active[going], pick[going], values[going]
            changed[active] = used[going]
            values = torch.where(pick, (values + self.theta).clamp(0, 1), values)
            moved[active] = values.view(-1, *images.shape[1:])
        return made

    def _derivatives(self, logits: Tensor, leaf: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """How much each value (N, M) raises the target's output, and lowers the others.

        One tensor twice where these are the same.
        """
        wanted = logits.gather(1, targets[:, None]).squeeze(1)
        if self.saliency == "probability" or logits.shape[1] == 2:
            own = functional.one_hot(targets, logits.shape[1]).bool()
            columns = [wanted - logits.masked_fill(own, -torch.inf).logsumexp(1)]
        elif self.saliency == "target":
            columns = [wanted]
        else:
            columns = [wanted, wanted - logits.sum(1)]
        found = torch.cat(list(gradients(torch.stack(columns, 1), leaf))).flatten(2)
        found = found if self.theta > 0 else -found
        return found[0], found[0] if len(found) == 1 else found[1]

    def _picks(self, up: Tensor, down: Tensor, free: Tensor) -> Tensor:
        """The values to change (N, M), of those that are free; none where none is fit."""
        if up is not down:
            if self.at_once == 2:
                return best_pairs(up, down, free)
            free = free & (up > 0) & (down > 0)
            up = up * down
        elif self.saliency != "target":
            free = free & (up > 0)
        top = up.masked_fill(~free, -torch.inf).topk(min(self.at_once, up.shape[1]), 1)
        return torch.zeros_like(free).scatter(1, top.indices, top.values > -torch.inf)


def best_pairs(up: Tensor, down: Tensor, free: Tensor) -> Tensor:
    """The pair with the largest product of sums in each row.

    The search is exact, yet compares only the few values that no two others beat in both sums.

    Args:
        up: (N, M), what each value adds to the first sum, which has to be above 0.
        down: (N, M), likewise for the second sum.
        free: bool (N, M), values that may be chosen.

    Returns:
        bool (N, M), with two true entries in a row, or none where no pair makes both sums positive.
    """
    # Of a best pair, neither is beaten in both by two others: one of them would do better.
    ordered, order = up.masked_fill(~free, -torch.inf).sort(1, descending=True)
    lower = down.masked_fill(~free, -torch.inf).gather(1, order)
    front = _unbeaten(lower)
    front |= _unbeaten(lower.masked_fill(front, -torch.inf))
    pick = torch.zeros_like(free)
    for row, places in enumerate(front):
        at = places.nonzero().squeeze(1)
        a, c = ordered[row, at], lower[row, at]
        best, pair = 0.0, (0, 0)
        height = max(1, BLOCK // max(1, len(at)))
        for start in range(0, len(at), height):
            rows = slice(start, start + height)
            first, second = a[rows, None] + a, c[rows, None] + c
            product = torch.where((first > 0) & (second > 0), first * second, 0)
            product.diagonal(start).zero_()
            most, where = product.flatten().max(0)
            if float(most) > best:
                best = float(most)
                pair = (start + int(where) // len(at), int(where) % len(at))
        if best > 0:
            pick[row, order[row, at[list(pair)]]] = True
    return pick


def _unbeaten(values: Tensor) -> Tensor:
    """Where each row rises above all that came before."""
    before = functional.pad(values.cummax(1).values[:, :-1], (1, 0), value=-torch.inf)
    return values > before
