"""Auto-PGD towards one class after the other."""

from __future__ import annotations

import logging
from typing import ClassVar

import torch
from torch import Tensor

from jernih.attacks.apgd import APGD
from jernih.attacks.base import ATTACKS
from jernih.attacks.losses import other_classes, targeted_dlr
from jernih.types import Norm
from jernih.validate import check_count

log = logging.getLogger(__name__)


@ATTACKS.register("apgd-t")
class APGDT(APGD):
    r"""Auto-PGD on the targeted difference of logits ratio (Croce & Hein, arXiv:2003.01690).

    :class:`APGD` towards each of the most likely wrong classes in turn, from the likeliest on the
    clean image. With the label y, the class aimed at t, and :math:`z_{(k)}` the k-th highest logit,
    it raises

    .. math:: \frac{z_t - z_y}{z_{(1)} - (z_{(3)} + z_{(4)}) / 2}

    Any wrong class counts as success, and the image then leaves the work. With two or three classes
    the ratio does not exist: the difference :math:`z_t - z_y` alone is raised instead, which has no
    scale of its own but, with steps along a sign or a unit vector, needs none.

    Args:
        eps: bound on the perturbation, on the scale of images in [0, 1]; None for 8/255 in L∞,
            0.5 in L2 and 12 in L1, as is usual for CIFAR-10.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        steps: number of steps in each run.
        restarts: number of runs from a random point towards each class.
        targets: number of classes to aim at; all the wrong ones, where there are fewer.
        rho: as for :class:`APGD`.
        samples: as for :class:`APGD`.
        stop_early: as for :class:`APGD`; off, every image takes all steps towards all classes.

    Raises:
        InputError: for another norm, counts below one, or ρ outside [0, 1].

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5)).eval()
        >>> images, labels = torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])
        >>> result = APGDT("8/255", steps=10, stop_early=False)(model, images, labels)
        >>> [round(float(d), 4) for d in result.distances]
        [0.0314, 0.0314]
    """

    reference: ClassVar[str] = "arXiv:2003.01690"

    def __init__(
        self,
        eps: float | str | None = None,
        *,
        norm: Norm = "linf",
        steps: int = 100,
        restarts: int = 1,
        targets: int = 9,
        rho: float = 0.75,
        samples: int = 1,
        stop_early: bool = True,
    ) -> None:
        super().__init__(
            eps,
            norm=norm,
            steps=steps,
            restarts=restarts,
            rho=rho,
            samples=samples,
            stop_early=stop_early,
        )
        self.targets = check_count("targets", targets)

    def _rounds(self, logits: Tensor, labels: Tensor) -> list[Tensor]:
        """The most likely wrong classes, one tensor (N,) a rank."""
        known = logits.shape[1]
        if known < 4:
            log.info("apgd-t: %d classes: raising the difference of two logits, not DLR", known)
        return list(other_classes(logits, labels, self.targets).unbind(1))

    def _value(self, logits: Tensor, labels: Tensor, goals: Tensor) -> Tensor:
        """What to raise, for each image (N,)."""
        if logits.shape[1] >= 4:
            return targeted_dlr(logits, labels, goals)
        pair = logits.gather(1, torch.stack([labels, goals], 1))
        return pair[:, 1] - pair[:, 0]
