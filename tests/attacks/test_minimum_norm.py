"""What the base makes of a search for the smallest perturbation."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from jernih.attacks import UNBOUNDED, MinimumNorm
from jernih.types import Norm
from jernih.validate import InputError

SIZES = torch.tensor([0.1, 0.3, 2.0])


class Shift(MinimumNorm):
    """Moves the first pixel by a size of its own for each image."""

    reference: ClassVar[str] = "none"
    norm: Norm = "l2"
    name = "shift"
    calls = 0

    def search(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        self.calls += 1
        moved = images.clone()
        moved[:, 0, 0, 0] += SIZES
        return moved


class Threshold(nn.Module):
    """The second class as soon as the first pixel is above 0.05."""

    def forward(self, images: Tensor) -> Tensor:
        score = images[:, 0, 0, 0] - 0.05
        return torch.stack([-score, score], 1)


def test_one_search_serves_all_bounds() -> None:
    attack = Shift()
    images, labels = torch.zeros(3, 3, 2, 2), torch.zeros(3, dtype=torch.int64)
    results = attack.sweep(Threshold().eval(), images, labels, [0.05, 0.1, 0.5, 3.0])
    assert attack.calls == 1
    found = [result.success.tolist() for result in results]
    # The third pixel leaves the range at 1, which makes its perturbation smaller.
    assert found == [
        [False, False, False], [True, False, False], [True, True, False], [True, True, True],
    ]  # fmt: skip
    torch.testing.assert_close(results[3].distances, torch.tensor([0.1, 0.3, 1.0]))
    assert torch.equal(results[0].images, images)


def test_without_a_bound_it_keeps_what_it_finds() -> None:
    attack = Shift()
    assert attack.eps == UNBOUNDED
    images, labels = torch.zeros(3, 3, 2, 2), torch.zeros(3, dtype=torch.int64)
    assert attack(Threshold().eval(), images, labels).success.all()


def test_bounds_by_norm() -> None:
    assert Shift(eps=3).eps == 3
    attack = Shift()
    attack.norm = "linf"
    with pytest.raises(InputError, match=r"epsilons: expected a number in \[0, 1\]"):
        attack.bound(3)
