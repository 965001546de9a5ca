"""Uniform noise: its distribution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jernih.attacks import PGD, UniformNoise
from jernih.randomness import generator


def test_distribution() -> None:
    images = torch.full((4, 3, 60, 60), 0.5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(10800, 2)).eval()
    labels = torch.zeros(4, dtype=torch.int64)
    made = UniformNoise(0.1)(model, images, labels, generator=generator(0)).images
    noise = ((made - images) / 0.1).flatten()
    for level in (-0.8, -0.3, 0.0, 0.5, 0.9):
        share = (level + 1) / 2
        assert float((noise <= level).float().mean()) == pytest.approx(share, abs=0.01)
    assert 0.999 < float(noise.abs().max()) <= 1 + 1e-5


def test_it_is_where_pgd_starts() -> None:
    class Flat(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(images), 2) + 0 * images.mean()

    images = torch.rand(4, 3, 5, 5, generator=generator("images"))
    labels = torch.zeros(4, dtype=torch.int64)
    noisy = UniformNoise(0.1)(Flat().eval(), images, labels, generator=generator(0)).images
    start = PGD(0.1, steps=1)(Flat().eval(), images, labels, generator=generator(0)).images
    torch.testing.assert_close(noisy, start, atol=1e-6, rtol=0)
