"""DeepFool: step to the nearest class boundary of the linearised model, again and again."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from jernih.attacks.asking import ask
from jernih.attacks.base import ATTACKS, MinimumNorm
from jernih.attacks.gradients import gradients
from jernih.attacks.losses import other_classes
from jernih.types import Norm
from jernih.validate import (
    check_choice,
    check_count,
    check_labels,
    check_logits,
    check_number,
)

Overshoot = Literal["total", "step", "end"]
NUDGE = 1e-4
"""Length in L2 by which each step is longer than to the boundary, so that none comes to nothing."""


@ATTACKS.register("deepfool")
class DeepFool(MinimumNorm):
    r"""DeepFool, untargeted (Moosavi-Dezfooli et al., arXiv:1511.04599).

    Near an image the model is nearly linear, and the boundaries between its class y and others k
    are planes. Each step goes to the nearest of them. With the gaps :math:`g_k = z_k - z_y` of the
    logits and their gradients :math:`w_k`, in L2:

    .. math:: r = \frac{|g_k|}{\lVert w_k \rVert_2^2} \, w_k
        \quad\text{for the}\quad k = \arg\min_k \frac{|g_k|}{\lVert w_k \rVert_2}

    In L∞ the step is :math:`|g_k| / \lVert w_k \rVert_1` along the sign of :math:`w_k`. Pixels are
    clipped to [0, 1] after each step. An image leaves the work as soon as the model is fooled; each
    step asks the model once, not once for each class.

    Args:
        eps: largest perturbation that counts, in ``norm``; None for any.
        norm: ``"l2"`` or ``"linf"``.
        steps: most steps for an image.
        overshoot: how much farther than to the boundary to go, as a share of the way.
        classes: how many classes to consider, the image's own and the most likely others on the
            clean image; None for all.
        overshoot_at: where the overshoot applies, in which implementations differ. ``"total"``:
            to the sum of all steps so far, at which the next gradients are taken (the authors'
            code, foolbox). ``"step"``: to each step by itself (torchattacks). ``"end"``: once, to
            the finished perturbation (the paper, ART).

    Raises:
        InputError: for another norm, counts below one (two for classes), or an overshoot outside
            [0, 1].

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(4, 2)
        >>> layer.weight.data = torch.tensor([[0.0, 0, 0, 0], [3, 0, 4, 0]])
        >>> layer.bias.data = torch.tensor([3.0, 0])
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), layer).eval()
        >>> images, labels = torch.full((1, 1, 2, 2), 0.5), torch.tensor([1])
        >>> attack = DeepFool(overshoot=0.02)  # the boundary is 0.5 / 5 away
        >>> round(float(attack(model, images, labels).distances), 3)
        0.102
    """

    reference: ClassVar[str] = "arXiv:1511.04599"

    def __init__(
        self,
        eps: float | str | None = None,
        *,
        norm: Norm = "l2",
        steps: int = 50,
        overshoot: float = 0.02,
        classes: int | None = 10,
        overshoot_at: Overshoot = "total",
    ) -> None:
        check_choice("norm", norm, ("l2", "linf"))
        self.norm = norm
        super().__init__(eps)
        self.steps = check_count("steps", steps)
        self.overshoot = check_number("overshoot", overshoot, 0, 1)
        self.classes = None if classes is None else check_count("classes", classes, 2)
        check_choice("overshoot_at", overshoot_at, get_args(Overshoot))
        self.overshoot_at = overshoot_at

    def search(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return the nearest adversarial images found; where none was found, the image itself."""
        moved, total = images.clone(), torch.zeros_like(images)
        active = torch.arange(len(images), device=images.device)
        others = active
        for step in range(self.steps + 1):
            inputs = moved[active].requires_grad_(step < self.steps)
            logits = check_logits(model(inputs), len(inputs))
            if step == 0:
                check_labels(labels, len(labels), logits.shape[1])
                others = other_classes(
                    logits.detach(), labels, (self.classes or logits.shape[1]) - 1
                )
            going = ~self.fooled(logits.detach(), labels[active])
            active = active[going]
            if len(active) == 0 or step == self.steps:
                break
            if len(active) < len(inputs):  # asking again costs less than gradients of the fooled
                inputs = moved[active].requires_grad_(True)
                logits = check_logits(model(inputs), len(inputs))
            own = logits.gather(1, labels[active, None])
            way = self._way(logits.gather(1, others[active]) - own, inputs)
            if self.overshoot_at == "total":
                total[active] += way
                way = (1 + self.overshoot) * total[active]
                moved[active] = (images[active] + way).clamp(0, 1)
            else:
                longer = self.overshoot if self.overshoot_at == "step" else 0
                moved[active] = (moved[active] + (1 + longer) * way).clamp(0, 1)
        moved[active] = images[active]
        if self.overshoot_at == "end":
            moved = (images + (1 + self.overshoot) * (moved - images)).clamp(0, 1)
            lost = ~self.fooled(ask(model, moved), labels)
            moved[lost] = images[lost]
        return moved

    def _way(self, gaps: Tensor, inputs: Tensor) -> Tensor:
        """The step (N, C, H, W) to the nearest boundary, given the gaps (N, R) of the logits."""
        order = 2 if self.norm == "l2" else 1
        rows = torch.arange(len(inputs), device=inputs.device)
        nearest = torch.full_like(gaps[:, 0], torch.inf)
        length, direction = torch.ones_like(nearest), torch.zeros_like(inputs)
        missing = gaps.detach().abs().unbind(1)
        start = 0
        for slopes in gradients(gaps, inputs):
            sizes = torch.linalg.vector_norm(slopes.flatten(2), ord=order, dim=2).clamp_min(1e-12)
            away, which = (torch.stack(missing[start : start + len(slopes)]) / sizes).min(0)
            closer = away < nearest
            nearest = torch.where(closer, away, nearest)
            length = torch.where(closer, sizes[which, rows], length)
            keep = closer.view(-1, 1, 1, 1)
            direction = torch.where(keep, slopes[which, rows], direction)
            start += len(slopes)
        if self.norm == "linf":
            way: Tensor = (nearest + NUDGE / inputs[0].numel() ** 0.5).view(-1, 1, 1, 1)
            return way * direction.sign()
        way = ((nearest + NUDGE) / length).view(-1, 1, 1, 1)
        return way * direction
