"""EAD: the least elastic-net size, in which few pixels change, plus a weighted hinge."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from jernih.attacks.asking import ask
from jernih.attacks.base import ATTACKS
from jernih.attacks.penalty import Penalised, Progress, Weights, check_positive, hinge
from jernih.types import Norm
from jernih.validate import check_choice, check_count, check_logits, check_number

Rule = Literal["EN", "L1"]


@ATTACKS.register("ead")
class EAD(Penalised):
    r"""The elastic-net attack (Chen et al., arXiv:1709.04114), in L1.

    With :math:`δ = x' - x` it minimises

    .. math:: c \max\bigl(z_y - \max_{k \ne y} z_k + κ,\; 0\bigr)
        + \lVert δ \rVert_2^2 + β \lVert δ \rVert_1

    by FISTA: a gradient step on the first two terms from a point ahead of the last image, then each
    pixel's change shrinks by β, and changes below β vanish. The weight c is searched for each image
    as in Carlini & Wagner's attack. The nearest of all images that fooled the model on the way, by
    ``rule``, is kept.

    As in the authors' code pixels shrink by β in every step, however long it is: β weighs the more
    the smaller the learning rate, which falls to 0 as :math:`\sqrt{1 - k / \text{steps}}`.

    Differences from the authors' code: the point ahead is clipped to [0, 1], and stopping early is
    decided for each image by itself. An image that can no longer move leaves the work.

    Args:
        eps: largest perturbation in L1 that counts; None for any.
        targeted: the labels passed are classes to reach.
        rule: which image is nearest: ``"EN"``, the least squares plus β times the L1 norm;
            ``"L1"``, the least L1 norm.
        beta: β, by how much each pixel's change shrinks in a step.
        searches: how many weights c to try.
        steps: most steps for each weight.
        learning_rate: the first.
        confidence: κ, by how much the logit of the class reached must lead.
        initial: first weight c.
        stop_early: end a search when a tenth of its steps, or 20, brought no gain; by the rule L1,
            if the model was not fooled either.

    Raises:
        InputError: for another rule, counts below one, a negative confidence, or other numbers that
            are not above 0.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(4, 2)
        >>> layer.weight.data = torch.tensor([[0.0, 0, 0, 0], [3, 0, 4, 0]])
        >>> layer.bias.data = torch.tensor([3.0, 0])
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), layer).eval()
        >>> images, labels = torch.full((1, 1, 2, 2), 0.5), torch.tensor([1])
        >>> attack = EAD(rule="L1", beta=0.01)  # the boundary is 0.5 / 4 away
        >>> round(float(attack(model, images, labels).distances), 3)
        0.125
    """

    reference: ClassVar[str] = "arXiv:1709.04114"
    norm: Norm = "l1"

    def __init__(
        self,
        eps: float | str | None = None,
        *,
        targeted: bool = False,
        rule: Rule = "EN",
        beta: float = 1e-3,
        searches: int = 9,
        steps: int = 1000,
        learning_rate: float = 0.01,
        confidence: float = 0.0,
        initial: float = 1e-3,
        stop_early: bool = True,
    ) -> None:
        super().__init__(eps, targeted=targeted)
        check_choice("rule", rule, get_args(Rule))
        self.rule = rule
        self.beta = check_positive("beta", beta, 1)
        self.searches = check_count("searches", searches)
        self.steps = check_count("steps", steps)
        self.learning_rate = check_positive("learning_rate", learning_rate)
        self.confidence = check_number("confidence", confidence, 0, 1e6)
        self.initial = check_positive("initial", initial)
        self.stop_early = stop_early

    def minimise(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Return the nearest adversarial images found; where none was found, the image itself."""
        best, sizes = images.clone(), torch.full_like(images[:, 0, 0, 0], torch.inf)
        weights = Weights(sizes, self.initial, self.searches)
        for _ in range(self.searches):
            weights.update(self._run(model, images, labels, weights.now, best, sizes))
        return best

    def _run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        weights: Tensor,
        best: Tensor,
        sizes: Tensor,
    ) -> Tensor:
        """Minimise for one weight each; improve ``best`` and ``sizes``; return who got fooled."""
        success = torch.zeros_like(labels, dtype=torch.bool)
        left = torch.arange(len(images), device=images.device)
        moved, ahead = images, images.clone()
        progress = Progress(weights, self.steps)
        for step in range(self.steps):
            ahead.requires_grad_(True)
            logits = check_logits(model(ahead), len(ahead))
            gap = hinge(logits, labels[left], self.targeted, self.confidence)
            squares, absolute = _sizes(ahead - images[left])
            smooth = weights[left] * gap + squares
            (gradient,) = torch.autograd.grad(smooth.sum(), ahead)
            losses = smooth.detach() + self.beta * absolute.detach()
            rate = self.learning_rate * (1 - step / self.steps) ** 0.5
            before, moved = moved, self._shrink(ahead.detach() - rate * gradient, images[left])
            ahead = (moved + step / (step + 3) * (moved - before)).clamp(0, 1)
            self._note(model, images, labels, left, moved, success, best, sizes)
            # At rest at the clean image, it stays there: the rate only falls.
            going = ((ahead != images[left]) | (moved != images[left])).flatten(1).any(1)
            if self.stop_early:
                better = progress.better(step, losses)
                if better is not None:
                    # Late small steps trade squares for L1, which the loss counts as no gain.
                    going &= better | success[left] if self.rule == "L1" else better
            if not bool(going.all()):
                left, moved, ahead = left[going], moved[going], ahead[going]
                progress.keep(going)
                if len(left) == 0:
                    break
        return success

    def _shrink(self, moved: Tensor, images: Tensor) -> Tensor:
        """Make every pixel's change smaller by β, to zero at most, within [0, 1]."""
        change = moved - images
        kept = (images + change.sign() * (change.abs() - self.beta)).clamp(0, 1)
        return torch.where(change.abs() > self.beta, kept, images)

    def _note(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        left: Tensor,
        moved: Tensor,
        success: Tensor,
        best: Tensor,
        sizes: Tensor,
    ) -> None:
        """Ask the model about the images that could make a difference, and keep the nearest."""
        squares, absolute = _sizes(moved - images[left])
        size = absolute if self.rule == "L1" else squares + self.beta * absolute
        asked = ((size < sizes[left]) | ~success[left]) & (size > 0)
        if not bool(asked.any()):
            return
        rows = left[asked]
        logits = ask(model, moved[asked])
        fooled = self.fooled(logits, labels[rows], self.confidence)
        success[rows] |= fooled
        closer = fooled & (size[asked] < sizes[rows])
        best[rows[closer]], sizes[rows[closer]] = moved[asked][closer], size[asked][closer]


def _sizes(changes: Tensor) -> tuple[Tensor, Tensor]:
    """The sums (N,) of the squares and of the absolute values of each image's changes."""
    flat = changes.flatten(1)
    return flat.square().sum(1), flat.abs().sum(1)
