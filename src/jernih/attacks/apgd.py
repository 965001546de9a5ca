"""Auto-PGD: projected gradient ascent that finds its own step sizes."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from jernih.attacks.ascent import Ascent, SparseAscent, random_start
from jernih.attacks.asking import ask, parts
from jernih.attacks.base import ATTACKS, Attack
from jernih.attacks.losses import cross_entropy, dlr
from jernih.attacks.pgd import BOUNDS
from jernih.types import Norm
from jernih.validate import (
    InputError,
    check_choice,
    check_count,
    check_labels,
    check_logits,
    check_number,
)

Loss = Literal["ce", "dlr"]


@ATTACKS.register("apgd")
class APGD(Attack):
    r"""Auto-PGD in L∞, L2 or L1 (Croce & Hein, arXiv:2003.01690).

    Projected gradient ascent with momentum, whose steps begin at 2ε. With Π the projection onto the
    ball and [0, 1], and d the sign of the gradient (L∞) or the gradient over its length (L2):

    .. math::
        z &= Π\bigl(x_t + α_t\, d_t\bigr) \\
        x_{t+1} &= Π\bigl(x_t + 0.75\,(z - x_t) + 0.25\,(x_t - x_{t-1})\bigr)

    At checkpoints, the first after 22 % of the steps and the later ones at intervals that shrink by
    3 % of them down to 6 %, α is halved and the ascent goes back to the best point so far, for each
    image by itself, if fewer than a share ρ of the steps since the last checkpoint raised the loss,
    or if α was kept there and the best loss has not grown since.

    An image leaves the work as soon as the model is fooled by it, also if it is as it comes; the
    authors' code goes on to the last step, which changes no success. Of an image that withstands
    all, the point of the highest loss is returned.

    Args:
        eps: bound on the perturbation, on the scale of images in [0, 1]; None for 8/255 in L∞,
            0.5 in L2 and 12 in L1, as is usual for CIFAR-10.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        targeted: the labels passed are classes to reach.
        steps: number of steps in each run.
        restarts: number of runs from a random point; later ones work on the images not yet fooled.
        loss: what to raise: ``"ce"``, the cross-entropy, or ``"dlr"``, the difference of logits
            ratio, which wants three classes. Targeted, it is lowered for the class to reach.
        rho: the share ρ, of no use in L1.
        samples: how often to ask the model at each point, for models that answer at random;
            gradients, losses and logits are averaged.
        stop_early: off, every image takes all steps, and the point of the highest loss among those
            that fool the model is returned where there is one.

    Raises:
        InputError: for another norm or loss, counts below one, or ρ outside [0, 1]; on the call,
            for ``"dlr"`` and a model of two classes.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
        >>> images, labels = torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])
        >>> result = APGD("8/255", steps=10, stop_early=False)(model, images, labels)
        >>> [round(float(d), 4) for d in result.distances]
        [0.0314, 0.0314]
    """

    reference: ClassVar[str] = "arXiv:2003.01690"

    def __init__(
        self,
        eps: float | str | None = None,
        *,
        norm: Norm = "linf",
        targeted: bool = False,
        steps: int = 100,
        restarts: int = 1,
        loss: Loss = "ce",
        rho: float = 0.75,
        samples: int = 1,
        stop_early: bool = True,
    ) -> None:
        check_choice("norm", norm, tuple(BOUNDS))
        self.norm = norm
        if eps is None:
            eps = self.options["eps"] = BOUNDS[norm]
        super().__init__(eps, targeted=targeted)
        self.steps = check_count("steps", steps)
        self.restarts = check_count("restarts", restarts)
        self.loss = check_choice("loss", loss, ("ce", "dlr"))
        self.rho = check_number("rho", rho, 0, 1)
        self.samples = check_count("samples", samples)
        self.stop_early = stop_early

    def run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        eps: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return attacked images for one bound."""
        logits = ask(model, images)
        check_labels(labels, len(images), logits.shape[1])
        rounds = self._rounds(logits, labels)
        kind = SparseAscent if self.norm == "l1" else Ascent
        best = images.detach().clone()
        fooled = self.fooled(logits, labels) & self.stop_early
        height = torch.full_like(best[:, 0, 0, 0], -torch.inf)
        for goals in (goals for goals in rounds for _ in range(self.restarts)):
            # Drawn for the whole batch, so that no image's start depends on who is left.
            start = random_start(images, self.norm, eps, generator)
            left = (~fooled | (not self.stop_early)).nonzero().squeeze(1)
            if len(left) == 0:
                break
            at = kind.begin(self.norm, eps, start[left], images[left], labels[left], goals[left])
            found, values, success = self._climb(model, at)
            better = (success > fooled[left]) | (
                (success == fooled[left]) & (values > height[left])
            )
            left = left[better]
            best[left], height[left], fooled[left] = found[better], values[better], success[better]
        return best

    def _rounds(self, logits: Tensor, labels: Tensor) -> list[Tensor]:
        """One tensor (N,) for each round of runs: the classes that :meth:`_value` is given."""
        if self.loss == "dlr" and logits.shape[1] < 3:
            raise InputError(
                "loss", "'ce' for a model of two classes", "'dlr'", "DLR compares three logits"
            )
        return [labels]

    def _value(self, logits: Tensor, labels: Tensor, goals: Tensor) -> Tensor:
        """What to raise, for each image (N,)."""
        values = (dlr if self.loss == "dlr" else cross_entropy)(logits, labels)
        return -values if self.targeted else values

    def _climb(self, model: nn.Module, at: Ascent) -> tuple[Tensor, Tensor, Tensor]:
        """One run: the points reached, their losses (N,), and which of them fool the model."""
        found, height = at.point.clone(), torch.full_like(at.value, -torch.inf)
        checkpoints = at.checkpoints(self.steps)
        for number in range(self.steps + 1):
            if number > 0:
                at.move(first=number == 1)
            success = self._look(model, at, last=number == self.steps)
            if bool(success.any()):
                better = success & (at.value > height[at.row])
                found[at.row[better]], height[at.row[better]] = at.point[better], at.value[better]
                if self.stop_early:
                    at.keep(~success)
                if len(at.row) == 0:
                    break
            if number in checkpoints:
                at.check(self.rho * checkpoints[number])
        fooled = height > -torch.inf
        missed = ~fooled[at.row]
        found[at.row[missed]], height[at.row[missed]] = at.top[missed], at.top_value[missed]
        return found, height, fooled

    def _look(self, model: nn.Module, at: Ascent, *, last: bool) -> Tensor:
        """Ask the model at each point, note loss and gradient, and say which fool it."""
        seen = [self._see(model, at, rows, last=last) for rows in parts(at.point)]
        logits, values, slopes = (torch.cat(some) for some in zip(*seen, strict=True))
        at.note(values, slopes)
        return self.fooled(logits, at.label)

    def _see(
        self, model: nn.Module, at: Ascent, rows: slice, *, last: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean logits, losses and gradients of some of the images."""
        leaf = at.point[rows].detach().requires_grad_(not last)
        labels, goals = at.label[rows], at.goal[rows]
        logits, values = torch.zeros((), device=leaf.device), torch.zeros((), device=leaf.device)
        slopes = torch.zeros_like(leaf)
        for _ in range(self.samples):
            with torch.set_grad_enabled(not last):
                answer = check_logits(model(leaf), len(leaf))
                value = self._value(answer, labels, goals)
            logits, values = logits + answer.detach(), values + value.detach()
            through = self.stop_early and self.samples == 1 and self.fooled(answer, labels).all()
            if not last and not through:  # else nobody wants the gradient
                slopes = slopes + torch.autograd.grad(value.sum(), leaf)[0]
        return logits, values.float() / self.samples, slopes / self.samples
