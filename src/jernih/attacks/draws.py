"""Random numbers for attacks, drawn on the CPU so that every device gets the same ones.

Each image's numbers depend on the generator and on the image's place in the batch alone, not on how
many images follow.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jernih.types import Norm


def source(generator: torch.Generator | None) -> torch.Generator:
    """The generator passed, or a new one seeded by the system: torch's own stays as it is."""
    if generator is not None:
        return generator
    fresh = torch.Generator()
    fresh.seed()
    return fresh


def streams(count: int, generator: torch.Generator | None) -> list[torch.Generator]:
    """A generator for each of ``count`` images, or parts of a batch, that are worked on alone.

    The seeds are drawn at once: what one draws, or when it stops, changes nothing for the others.
    """
    seeds = torch.randint(2**63 - 1, (count,), generator=source(generator))
    return [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]


def normal(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Independent standard normal numbers in the shape of ``images`` (N, C, H, W)."""
    return _normal(len(images), images[0].numel(), generator).to(images).view_as(images)


def in_ball(images: Tensor, norm: Norm, generator: torch.Generator | None) -> Tensor:
    """A uniformly random point of the unit ball in ``norm`` for each image (N, C, H, W).

    L2: a point of the sphere in two more dimensions, less two coordinates, is uniform in the ball.
    L1: exponential numbers, one more than there are pixels, over their sum (Devroye, "Non-Uniform
    Random Variate Generation", Springer 1986, chapters V.2 and V.4).
    """
    count, size = len(images), images[0].numel()
    if norm == "linf":
        return (torch.rand(images.shape, generator=source(generator)) * 2 - 1).to(images)
    if norm == "l2":
        drawn = _normal(count, size + 2, generator)
        length: Tensor = torch.linalg.vector_norm(drawn, dim=1, keepdim=True)
        points = drawn / length
        return points[:, :size].to(images).view_as(images)
    drawn = torch.rand((count, size + 1), generator=source(generator)) * 2 - 1
    exponential = -torch.log1p(-drawn.abs().clamp_max(1 - 1e-7))
    points = drawn.sign() * exponential / exponential.sum(1, keepdim=True)
    return points[:, :size].to(images).view_as(images)


def _normal(count: int, size: int, generator: torch.Generator | None) -> Tensor:
    # Row by row: torch fills the end of a tensor in another way than its middle.
    chosen = source(generator)
    return torch.stack([torch.randn(size, generator=chosen) for _ in range(count)])
