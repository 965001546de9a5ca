"""DDN: gradient steps of a set length, then a perturbation of a set norm, each set by itself."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from jernih.attacks.asking import ask, slope
from jernih.attacks.base import ATTACKS, MinimumNorm, distance, unit
from jernih.attacks.draws import normal
from jernih.attacks.losses import log_odds
from jernih.attacks.penalty import check_positive
from jernih.types import Norm
from jernih.validate import check_count, check_labels, check_number

LAST = 0.01
"""Length of the last step; the first has length 1."""


@ATTACKS.register("ddn")
class DDN(MinimumNorm):
    r"""Decoupled direction and norm, in L2 (Rony et al., arXiv:1811.09600).

    Nothing weighs the size of a perturbation against its effect, as in Carlini & Wagner's attack,
    so that there is no weight to search for. Each step goes along the gradient of the
    cross-entropy, scaled to a length that falls from 1 to 0.01 along a cosine. Then the whole
    perturbation is scaled to a norm: ``gamma`` smaller than before when the model was fooled,
    larger by as much when it was not. The nearest of all images that fooled the model on the way is
    kept.

    Differences from the authors' code: a gradient does not vanish where the model is sure, since
    that of the log-odds, which has the same direction, is taken in its place, and the norm never
    exceeds the distance to the farthest image.

    Args:
        eps: largest perturbation in L2 that counts; None for any.
        targeted: the labels passed are classes to reach.
        steps: gradients taken. The paper also tries 300 and 1,000, which gain a few per cent.
        initial: the first norm.
        gamma: the share by which the norm changes in each step.
        levels: how many values a pixel can take, such as 256: each image tried is rounded to them,
            so that what is found survives being saved. None for no rounding.

    Raises:
        InputError: for no steps, an initial norm that is not above 0, a gamma not above 0 or above
            0.99, or fewer than two levels.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(4, 2)
        >>> layer.weight.data = torch.tensor([[0.0, 0, 0, 0], [3, 0, 4, 0]])
        >>> layer.bias.data = torch.tensor([3.0, 0])
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), layer).eval()
        >>> images, labels = torch.full((1, 1, 2, 2), 0.5), torch.tensor([1])
        >>> attack = DDN()  # the boundary is 0.5 / 5 away
        >>> round(float(attack(model, images, labels).distances), 2)
        0.1
    """

    reference: ClassVar[str] = "arXiv:1811.09600"
    norm: Norm = "l2"

    def __init__(
        self,
        eps: float | str | None = None,
        *,
        targeted: bool = False,
        steps: int = 100,
        initial: float = 1.0,
        gamma: float = 0.05,
        levels: int | None = None,
    ) -> None:
        super().__init__(eps, targeted=targeted)
        self.steps = check_count("steps", steps)
        self.initial = check_positive("initial", initial)
        self.gamma = check_positive("gamma", check_number("gamma", gamma, 0, 0.99))
        self.levels = None if levels is None else check_count("levels", levels, 2)

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
        noise = normal(images, generator)
        todo = ~self.fooled(logits, labels)
        found = images.clone()
        if bool(todo.any()):
            found[todo] = self._search(model, images[todo], labels[todo], noise[todo])
        return found

    def _search(self, model: nn.Module, images: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
        """Search for all images, none of which fools the model as it is.

        ``noise`` gives the direction where the gradient is zero.
        """
        best, moved = images.clone(), images.clone()
        farthest = distance(images, (images < 0.5).to(images), "l2")
        smallest = torch.full_like(farthest, torch.inf)
        norms = torch.full_like(farthest, self.initial)
        for step in range(self.steps):
            gradient, logits = slope(model, moved, labels, log_odds)
            fooled = self.fooled(logits, labels)
            sizes = distance(images, moved, "l2")
            closer = fooled & (sizes < smallest)
            best[closer], smallest[closer] = moved[closer], sizes[closer]
            if step + 1 == self.steps:
                break
            length = LAST + (1 - LAST) * (1 + math.cos(math.pi * step / self.steps)) / 2
            sloping = gradient.flatten(1).any(1).view(-1, 1, 1, 1)
            way = unit(torch.where(sloping, -gradient if self.targeted else gradient, noise))
            norms = norms * torch.where(fooled, 1 - self.gamma, 1 + self.gamma)
            norms = torch.minimum(norms, farthest)
            delta = norms.view(-1, 1, 1, 1) * unit(moved - images + length * way)
            moved = (images + delta).clamp(0, 1)
            if self.levels is not None:
                moved = (moved * (self.levels - 1)).round() / (self.levels - 1)
        return best
