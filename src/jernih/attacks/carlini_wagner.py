"""Carlini & Wagner's attack in L2: the least squared size plus a weighted hinge on the logits."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from jernih.attacks.base import ATTACKS
from jernih.attacks.penalty import (
    Adam,
    Penalised,
    Progress,
    Weights,
    check_positive,
    from_tanh,
    hinge,
    to_tanh,
)
from jernih.types import Norm
from jernih.validate import check_count, check_logits, check_number


@ATTACKS.register("carlini-wagner")
class CarliniWagner(Penalised):
    r"""Carlini & Wagner's attack in L2 (arXiv:1608.04644).

    Adam minimises, over a w with the image :math:`x' = (\tanh w + 1) / 2`,

    .. math:: \lVert x' - x \rVert_2^2 + c \max\bigl(z_y - \max_{k \ne y} z_k + κ,\; 0\bigr)

    with z the logits of x' and y the true class; targeted, the logits trade places. The weight c is
    searched for each image: ten times as much until the model is fooled, then by halving. The
    nearest of all images that fooled the model on the way is kept.

    Differences from the authors' code: the range of tanh is scaled so that black and white pixels
    can move (there they are frozen), and stopping early is decided for each image by itself.

    Args:
        eps: largest perturbation in L2 that counts; None for any.
        targeted: the labels passed are classes to reach.
        searches: how many weights c to try.
        steps: most steps of Adam for each weight. The paper takes 10,000, which gives hardly
            smaller perturbations. Each moves w by hardly more than the learning rate: with few
            steps, far targets are out of reach.
        learning_rate: of Adam.
        confidence: κ, by how much the logit of the class reached must lead.
        initial: first weight c.
        stop_early: end a search when a tenth of its steps, or 20, brought no gain.

    Raises:
        InputError: for counts below one, a negative confidence, or a learning rate or weight that
            is not above 0.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(4, 2)
        >>> layer.weight.data = torch.tensor([[0.0, 0, 0, 0], [3, 0, 4, 0]])
        >>> layer.bias.data = torch.tensor([3.0, 0])
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), layer).eval()
        >>> images, labels = torch.full((1, 1, 2, 2), 0.5), torch.tensor([1])
        >>> attack = CarliniWagner(steps=200)  # the boundary is 0.5 / 5 away
        >>> round(float(attack(model, images, labels).distances), 2)
        0.1
    """

    reference: ClassVar[str] = "arXiv:1608.04644"
    norm: Norm = "l2"

    def __init__(
        self,
        eps: float | str | None = None,
        *,
        targeted: bool = False,
        searches: int = 9,
        steps: int = 1000,
        learning_rate: float = 0.01,
        confidence: float = 0.0,
        initial: float = 1e-3,
        stop_early: bool = True,
    ) -> None:
        super().__init__(eps, targeted=targeted)
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
        w, edge = to_tanh(images), float(to_tanh(images.new_ones(())))
        adam = Adam(w, torch.full_like(weights, self.learning_rate))
        progress = Progress(weights, self.steps)
        for step in range(self.steps):
            w.requires_grad_(True)
            moved = from_tanh(w)
            logits = check_logits(model(moved), len(moved))
            squares = (moved - images[left]).square().flatten(1).sum(1)
            gap = hinge(logits, labels[left], self.targeted, self.confidence)
            losses = squares + weights[left] * gap
            (gradient,) = torch.autograd.grad(losses.sum(), w)
            fooled = self.fooled(logits.detach(), labels[left], self.confidence)
            success[left] |= fooled
            closer = fooled & (squares < sizes[left])
            better = left[closer]
            best[better], sizes[better] = moved.detach()[closer], squares.detach()[closer]
            w = (w.detach() + adam.step(gradient)).clamp_(-edge, edge)
            going = progress.better(step, losses.detach()) if self.stop_early else None
            if going is not None and not bool(going.all()):
                left, w = left[going], w[going]
                adam.keep(going)
                progress.keep(going)
                if len(left) == 0:
                    break
        return success
