"""FAB-T: FAB with one target class after another, as in AutoAttack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor

from jernih.attacks.base import ATTACKS
from jernih.attacks.fab import FAB
from jernih.attacks.losses import other_classes
from jernih.types import Norm
from jernih.validate import check_count


@ATTACKS.register("fab-t")
class FABT(FAB):
    """FAB against one boundary at a time (Croce & Hein, arXiv:2003.01690).

    Each round looks at the boundary between the image's class and one other alone: first the most
    likely other class on the clean image, then the next. One gradient a step serves where
    :class:`~jernih.attacks.fab.FAB` takes one for each class, and more rounds find smaller
    perturbations. Any wrong class counts, whichever the round is about.

    Args:
        eps: as for FAB, like all that is not listed here.
        norm: as for FAB.
        targets: number of rounds, as far as there are other classes. AutoAttack takes 9.
        steps: number of steps of each run.
        restarts: number of runs of each round.
        alpha_max: as for FAB.
        eta: as for FAB.
        beta: as for FAB.
        final_steps: as for FAB.
        stop_early: as for FAB. AutoAttack leaves images out of later rounds too, but not of the
            rest of a run.

    Raises:
        InputError: as FAB does, and for targets below one.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
        >>> images = torch.full((2, 3, 2, 2), 0.5)
        >>> labels = model(images).argmax(1)
        >>> attack = FABT(norm="l2", targets=2, steps=10)
        >>> attack(model, images, labels).success.tolist()
        [True, True]
    """

    reference: ClassVar[str] = "arXiv:2003.01690"

    def __init__(
        self,
        eps: float | str | None = None,
        *,
        norm: Norm = "linf",
        targets: int = 9,
        steps: int = 100,
        restarts: int = 1,
        alpha_max: float = 0.1,
        eta: float = 1.05,
        beta: float = 0.9,
        final_steps: int = 3,
        stop_early: bool = False,
    ) -> None:
        super().__init__(
            eps,
            norm=norm,
            steps=steps,
            restarts=restarts,
            alpha_max=alpha_max,
            eta=eta,
            beta=beta,
            final_steps=final_steps,
            stop_early=stop_early,
        )
        self.targets = check_count("targets", targets)

    def rounds(self, clean: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """One class (N, 1) for each round, from the clean logits."""
        ranked = other_classes(clean, labels, self.targets)
        yield from (classes[:, None] for classes in ranked.unbind(1))
