"""Projection onto the balls, against brute force."""

from __future__ import annotations

import pytest
import torch

from jernih.attacks import distance, project
from jernih.randomness import generator
from jernih.types import Norm


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_projection_is_nearest_point_of_the_ball(norm: Norm) -> None:
    source = generator("project", norm)
    delta = torch.randn(5, 1, 2, 3, generator=source) * 2
    zeros = torch.zeros_like(delta)
    near = project(delta, norm, 1.0)
    assert float(distance(zeros, near, norm).max()) <= 1 + 1e-5
    reach = distance(near, delta, "l2")
    for _ in range(300):
        other = torch.randn(delta.shape, generator=source)
        size = distance(zeros, other, norm).view(-1, 1, 1, 1)
        other = other / size * torch.rand(size.shape, generator=source)
        assert bool((distance(other, delta, "l2") >= reach - 1e-5).all())


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_what_is_inside_stays(norm: Norm) -> None:
    delta = torch.full((2, 1, 2, 2), 0.1)
    torch.testing.assert_close(project(delta, norm, 1.0), delta)
