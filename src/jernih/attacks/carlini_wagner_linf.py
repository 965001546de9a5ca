"""Carlini & Wagner's attack in L∞: a limit on each pixel that shrinks as long as it can be held."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from jernih.attacks.base import ATTACKS
from jernih.attacks.penalty import (
    Adam,
    Penalised,
    Progress,
    check_positive,
    from_tanh,
    hinge,
    to_tanh,
)
from jernih.types import Norm
from jernih.validate import check_count, check_logits, check_number

SHARE = 0.1
"""The learning rate is at most this share of τ: larger steps leap back and forth over the limit."""


@ATTACKS.register("carlini-wagner-linf")
class CarliniWagnerLinf(Penalised):
    r"""Carlini & Wagner's attack in L∞ (arXiv:1608.04644, section VI-C).

    The maximum of a perturbation has a gradient at one pixel alone, so that minimising it leads
    nowhere. In its place every pixel beyond a limit τ pays. Adam minimises, over a w with the image
    :math:`x' = (\tanh w + 1) / 2`,

    .. math:: c \max\bigl(z_y - \max_{k \ne y} z_k + κ,\; 0\bigr)
        + \sum_i \max\bigl(|x'_i - x_i| - τ,\; 0\bigr)

    Once the model is fooled with no pixel beyond τ, the limit becomes ``shrink`` times the largest
    change in that image, and the search goes on from there. Otherwise c doubles; beyond
    ``largest`` it ends. Each image has its own τ and c. The nearest of all images that fooled the
    model on the way is kept.

    Differences from the authors' code: the range of tanh is scaled so that black and white pixels
    can move, τ may fall below 1/256, the steps of Adam shrink with τ, and ``stop_early`` ends a run
    that no longer gains. The authors take 1,000 steps at 0.005, c from 1e-5 and shrink by 0.9;
    smaller steps of τ take no longer, because each is held almost at once, and end nearer to the
    least τ. The class that is reached first tends to stay, even if another is nearer.

    Args:
        eps: largest perturbation in L∞ that counts; None for any.
        targeted: the labels passed are classes to reach.
        steps: most steps of Adam for each τ and c.
        learning_rate: of Adam, at most.
        confidence: κ, by how much the logit of the class reached must lead.
        initial: first weight c.
        largest: the largest weight c to try.
        shrink: what τ is multiplied by, above 0 and below 1.
        smallest: the limit τ below which the search ends.
        stop_early: end a run when a tenth of its steps, or 20, brought no gain.

    Raises:
        InputError: for a count below one, a negative confidence, a shrink of 1, or other numbers
            that are not above 0.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(4, 2)
        >>> layer.weight.data = torch.tensor([[0.0, 0, 0, 0], [3, 0, 4, 0]])
        >>> layer.bias.data = torch.tensor([3.0, 0])
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), layer).eval()
        >>> images, labels = torch.full((1, 1, 2, 2), 0.5), torch.tensor([1])
        >>> attack = CarliniWagnerLinf()  # the boundary is 0.5 / 7 away
        >>> round(float(attack(model, images, labels).distances), 3)
        0.072
    """

    reference: ClassVar[str] = "arXiv:1608.04644"
    norm: Norm = "linf"

    def __init__(
        self,
        eps: float | str | None = None,
        *,
        targeted: bool = False,
        steps: int = 300,
        learning_rate: float = 0.01,
        confidence: float = 0.0,
        initial: float = 1e-3,
        largest: float = 20.0,
        shrink: float = 0.98,
        smallest: float = 1e-4,
        stop_early: bool = True,
    ) -> None:
        super().__init__(eps, targeted=targeted)
        self.steps = check_count("steps", steps)
        self.learning_rate = check_positive("learning_rate", learning_rate)
        self.confidence = check_number("confidence", confidence, 0, 1e6)
        self.initial = check_positive("initial", initial)
        self.largest = check_positive("largest", largest)
        self.shrink = check_positive("shrink", shrink, 0.999)
        self.smallest = check_positive("smallest", smallest, 1)
        self.stop_early = stop_early

    def minimise(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Return the nearest adversarial images found; where none was found, the image itself."""
        best, reach = images.clone(), torch.full_like(images[:, 0, 0, 0], torch.inf)
        start, limits = images.clone(), torch.ones_like(reach)
        weights = torch.full_like(reach, self.initial)
        left = torch.arange(len(images), device=images.device)
        while len(left):
            ended = self._run(
                model, images[left], labels[left], start[left], limits[left], weights[left]
            )
            held, last, nearest, nearest_reach = ended
            closer = nearest_reach < reach[left]
            best[left[closer]], reach[left[closer]] = nearest[closer], nearest_reach[closer]
            start[left[held]] = last[held]
            limits[left[held]] = torch.minimum(limits, reach)[left[held]] * self.shrink
            weights[left[~held]] *= 2
            going = (limits[left] >= self.smallest) & (weights[left] <= self.largest)
            left = left[going]
        return best

    def _run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        start: Tensor,
        limits: Tensor,
        weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Minimise for one limit and weight each.

        Returns:
            which images fooled the model within the limit; with these, the image that did; the
            nearest image that fooled the model; and its largest change.
        """
        held = torch.zeros_like(labels, dtype=torch.bool)
        last, nearest = start.clone(), images.clone()
        reach = torch.full_like(limits, torch.inf)
        left = torch.arange(len(images), device=images.device)
        w, edge = to_tanh(start), float(to_tanh(images.new_ones(())))
        adam = Adam(w, (limits * SHARE).clamp_max(self.learning_rate))
        progress = Progress(limits, self.steps)
        for step in range(self.steps):
            w.requires_grad_(True)
            moved = from_tanh(w)
            logits = check_logits(model(moved), len(moved))
            change = (moved - images[left]).abs().flatten(1)
            beyond = (change - limits[left, None]).clamp_min(0).sum(1)
            gap = hinge(logits, labels[left], self.targeted, self.confidence)
            losses = weights[left] * gap + beyond
            (gradient,) = torch.autograd.grad(losses.sum(), w)
            fooled = self.fooled(logits.detach(), labels[left], self.confidence)
            most = change.detach().amax(1)
            closer = fooled & (most < reach[left])
            nearest[left[closer]], reach[left[closer]] = moved.detach()[closer], most[closer]
            done = fooled & (most <= limits[left])
            held[left[done]], last[left[done]] = True, moved.detach()[done]
            going = ~done
            if self.stop_early:
                better = progress.better(step, losses.detach())
                going = going if better is None else going & better
            w = (w.detach() + adam.step(gradient)).clamp_(-edge, edge)
            if not bool(going.all()):
                left, w = left[going], w[going]
                adam.keep(going)
                progress.keep(going)
                if len(left) == 0:
                    break
        return held, last, nearest, reach
