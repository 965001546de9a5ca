"""What the base finds out about an attack that does not say it."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from jernih.attacks import Attack
from jernih.types import Norm
from jernih.validate import check_choice


class Still(Attack):
    """An attack that does nothing."""

    def run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        eps: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        return images


class OneNorm(Still):
    norm: Norm = "l2"

    def __init__(self, eps: float = 0.1) -> None:
        super().__init__(eps)


class TwoNorms(Still):
    def __init__(self, eps: float = 0.1, *, norm: Norm = "l1", targeted: bool = False) -> None:
        self.norm = check_choice("norm", norm, ["l2", "l1"])  # type: ignore[assignment]
        super().__init__(eps, targeted=targeted)


class Says(TwoNorms):
    norms: ClassVar[tuple[Norm, ...]] = ("l1",)
    targetable: ClassVar[bool] = False


class Wants(Still):
    norm: Norm = "l2"

    def __init__(self, another: nn.Module, norm: Norm = "l2") -> None:
        super().__init__(0.1)


@pytest.mark.parametrize(
    ("attack", "norms", "targetable"),
    [
        (Attack, ("linf",), True),
        (Still, ("linf",), True),
        (OneNorm, ("l2",), False),
        (TwoNorms, ("l2", "l1"), True),
        (Says, ("l1",), False),
        (Wants, ("l2",), False),
    ],
)
def test_norms_and_targeted_form(
    attack: type[Attack], norms: tuple[Norm, ...], targetable: bool
) -> None:
    assert attack.norms == norms
    assert attack.targetable is targetable
    assert attack.needs == "gradients"
