"""Salt-and-pepper noise: how many pixels change, and how."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jernih.attacks import SaltAndPepper
from jernih.randomness import generator
from jernih.validate import InputError


@pytest.mark.parametrize("amount", [0.1, 0.6, 1.0])
def test_shares_and_steps(amount: float) -> None:
    images = torch.full((4, 3, 60, 60), 0.5)
    images[:, :, :5] = 0.98
    model = nn.Sequential(nn.Flatten(), nn.Linear(10800, 2)).eval()
    attack = SaltAndPepper(0.1, amount=amount)
    made = attack(model, images, torch.zeros(4, dtype=torch.int64), generator=generator(0)).images
    change = made - images
    assert torch.equal(made[:, 0], made[:, 1])
    assert torch.equal(made[:, 0], made[:, 2])
    up, down = change > 0, change < 0
    assert float(up.float().mean()) == pytest.approx(amount / 2, abs=0.02)
    assert float(down.float().mean()) == pytest.approx(amount / 2, abs=0.02)
    torch.testing.assert_close(change[down], torch.full_like(change[down], -0.1))
    room = (1 - images).clamp_max(0.1)
    torch.testing.assert_close(change[up], room[up])
    assert not torch.equal(change[0], change[1])


def test_a_bound_of_one_makes_pixels_black_and_white() -> None:
    images = torch.rand(2, 3, 20, 20, generator=generator("images")) * 0.8 + 0.1
    model = nn.Sequential(nn.Flatten(), nn.Linear(1200, 2)).eval()
    labels = torch.zeros(2, dtype=torch.int64)
    made = SaltAndPepper(1, amount=0.5)(model, images, labels, generator=generator(0)).images
    changed = made != images
    values = made[changed]
    assert bool(((values < 1e-6) | (values > 1 - 1e-6)).all())


@pytest.mark.parametrize("amount", [0, -0.1, 1.1])
def test_refuses_bad_amounts(amount: float) -> None:
    with pytest.raises(InputError, match="amount"):
        SaltAndPepper(amount=amount)
