"""Gaussian noise: its distribution."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from jernih.attacks import GaussianNoise
from jernih.randomness import generator
from jernih.validate import InputError


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_distribution(share: float) -> None:
    images = torch.full((4, 3, 60, 60), 0.5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(10800, 2)).eval()
    attack = GaussianNoise(0.1, std=share)
    made = attack(model, images, torch.zeros(4, dtype=torch.int64), generator=generator(0)).images
    noise = (made - images) / 0.1
    cut = math.erfc(1 / share / math.sqrt(2))
    assert float((noise.abs() > 1 - 1e-5).float().mean()) == pytest.approx(cut, abs=0.01)
    for level in (0.1, 0.4, 0.9):
        within = math.erf(level / share / math.sqrt(2))
        assert float((noise.abs() <= level).float().mean()) == pytest.approx(within, abs=0.01)
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    channels = noise.flatten(2).transpose(0, 1).flatten(1)
    correlation = torch.corrcoef(channels) - torch.eye(3)
    assert float(correlation.abs().max()) < 0.03


@pytest.mark.parametrize("std", [0, -1, 11, "much"])
def test_refuses_bad_deviations(std: float) -> None:
    with pytest.raises(InputError, match="std"):
        GaussianNoise(std=std)
