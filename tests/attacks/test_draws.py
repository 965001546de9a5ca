"""Random points: where they lie, and what they depend on."""

from __future__ import annotations

import pytest
import torch

from jernih.attacks import distance
from jernih.attacks.draws import in_ball, normal, streams
from jernih.randomness import generator
from jernih.types import Norm

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")


@pytest.mark.parametrize("norm", NORMS)
def test_uniform_in_the_ball(norm: Norm) -> None:
    images = torch.zeros(40_000, 1, 1, 3)
    points = in_ball(images, norm, generator("ball", norm))
    size = distance(images, points, norm)
    assert float(size.max()) <= 1 + 1e-6
    # The share within a radius r of a uniform point in d dimensions is r to the power d.
    for radius in (0.3, 0.6, 0.9):
        assert float((size <= radius).float().mean()) == pytest.approx(radius**3, abs=0.01)
    # Rejection from the cube gives what the coordinates should look like.
    cube = torch.rand(200_000, 3, generator=generator("cube")) * 2 - 1
    inside = cube[distance(torch.zeros(len(cube), 1, 1, 3), cube.view(-1, 1, 1, 3), norm) <= 1]
    for order in (1, 2, 4):
        wanted = inside.abs().pow(order).mean(0)
        found = points.flatten(1).abs().pow(order).mean(0)
        torch.testing.assert_close(found, wanted, atol=0.01, rtol=0)
    assert float(points.mean().abs()) < 0.01


@pytest.mark.parametrize("norm", NORMS)
def test_later_images_do_not_matter(norm: Norm) -> None:
    images = torch.zeros(5, 3, 3, 3)  # a size that torch's vectorised drawing does not divide
    points = in_ball(images, norm, generator(0))
    assert torch.equal(in_ball(images[:2], norm, generator(0)), points[:2])
    assert torch.equal(normal(images[:2], generator(0)), normal(images, generator(0))[:2])


@pytest.mark.parametrize("norm", NORMS)
def test_without_a_generator(norm: Norm) -> None:
    images = torch.zeros(2, 3, 4, 4)
    state = torch.get_rng_state()
    assert not torch.equal(in_ball(images, norm, None), in_ball(images, norm, None))
    assert not torch.equal(normal(images, None), normal(images, None))
    assert torch.equal(torch.get_rng_state(), state)


def test_normal() -> None:
    drawn = normal(torch.zeros(8, 3, 40, 40), generator(1))
    assert drawn.shape == (8, 3, 40, 40)
    assert float(drawn.mean()) == pytest.approx(0, abs=0.02)
    assert float(drawn.std()) == pytest.approx(1, abs=0.02)
    assert float((drawn.abs() < 1).float().mean()) == pytest.approx(0.6827, abs=0.01)


def test_streams_are_apart() -> None:
    few, many = (streams(count, generator("streams")) for count in (2, 5))
    drawn = [[torch.rand(3, generator=one) for one in some] for some in (few, many)]
    for image in range(2):
        assert torch.equal(drawn[0][image], drawn[1][image])
    assert len({tuple(numbers.tolist()) for numbers in drawn[1]}) == 5
    state = torch.get_rng_state()
    first, second = (torch.rand(3, generator=streams(1, None)[0]) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())
