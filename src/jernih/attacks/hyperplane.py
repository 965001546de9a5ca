"""The way to a class boundary of the linearised model, and how much of it the range allows.

Between an image's class and another the linearised model has a plane for a boundary: the points
whose logits have no gap. The nearest point of the plane that is an image, with all pixels in
[0, 1], is found exactly; the problem is that of Croce & Hein, arXiv:1907.02044.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jernih.attacks.gradients import gradients
from jernih.types import Norm

DUAL: dict[Norm, float] = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}
"""The order of the norm that measures a plane's normal when ``norm`` measures ways to the plane."""


ROUNDS = 50
"""Most rounds of Newton's method. Random planes take up to about ten."""
LATE = 1e15
"""A time at which any pixel has come to its end."""


def nearest_boundary(gaps: Tensor, inputs: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """The plane nearest to each image, regardless of the range of pixels.

    Args:
        gaps: (N, R), for each image R values whose zeros are the boundaries; with their graph.
        inputs: images (N, C, H, W), a leaf that requires gradients.
        norm: what measures nearness.

    Returns:
        the gradient (N, C, H, W) and the value (N,) of the gap of the nearest plane.
    """
    rows = torch.arange(len(inputs), device=inputs.device)
    values = gaps.detach()
    nearest = torch.full_like(values[:, 0], torch.inf)
    normal, gap = torch.zeros_like(inputs), values[:, 0]
    start = 0
    for slopes in gradients(gaps, inputs):
        some = values[:, start : start + len(slopes)].T
        sizes = torch.linalg.vector_norm(slopes.flatten(2), ord=DUAL[norm], dim=2)
        away, which = (some.abs() / sizes.clamp_min(1e-12)).min(0)
        closer = away < nearest
        nearest = torch.where(closer, away, nearest)
        normal = torch.where(closer.view(-1, 1, 1, 1), slopes[which, rows], normal)
        gap = torch.where(closer, some[which, rows], gap)
        start += len(slopes)
    return normal.detach(), gap


def way_to_plane(points: Tensor, normals: Tensor, missing: Tensor, norm: Norm) -> Tensor:
    """The shortest step within [0, 1] from each point to a plane.

    Of all steps d for which the pixels of ``points + d`` are in [0, 1] and the scalar product of
    ``normals`` and d is ``missing``, the one that is smallest in ``norm``. Where there is none, the
    plane passes the range by, and each pixel goes to the end of the range that is nearer to it.

    Args:
        points: images (N, C, H, W) in [0, 1].
        normals: (N, C, H, W); pixels where it is 0 do not move.
        missing: (N,), how much the scalar product with the normal has to gain.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.

    Returns:
        steps (N, C, H, W).
    """
    flat = normals.flatten(1)
    # Over the largest first: squares of small gradients underflow.
    largest = flat.abs().amax(1, keepdim=True).clamp_min(1e-30)
    flat = flat / largest
    missing = (missing[:, None] / largest).clamp(-1e30, 1e30)
    weight = flat.abs()
    weight = torch.where(weight < 1e-12, 0, weight)
    sign = torch.where(weight > 0, flat.sign() * torch.where(missing < 0, -1, 1), 0)
    start = points.flatten(1)
    room = torch.where(sign > 0, 1 - start, torch.where(sign < 0, start, 0)).clamp_min(0)
    fill = _one_by_one if norm == "l1" else _together
    pace = torch.ones_like(weight) if norm == "linf" else weight
    return (sign * fill(room, weight, pace, missing.abs())).view_as(points)


def _together(room: Tensor, weight: Tensor, pace: Tensor, goal: Tensor) -> Tensor:
    """Pixels move each at its pace until its room is used up; when the goal is met all stop.

    In L∞ all move at one pace, in L2 at their weights: the conditions of Karush, Kuhn and Tucker.
    What is gained grows ever more slowly, so Newton's method for the time of the stop, from 0 on,
    never goes too far, and is there as soon as no more pixels come to their end. It needs a handful
    of rounds, which cost about half of what sorting the pixels does.
    """
    gain, speed = weight * room, weight * pace
    stop = torch.zeros_like(goal)
    steps = torch.zeros_like(room)
    for _ in range(ROUNDS):
        full = stop * pace >= room
        reached = torch.where(full, gain, 0).sum(1, keepdim=True)
        moving = torch.where(full, 0, speed).sum(1, keepdim=True)
        # With all at their end the goal is out of reach.
        later = torch.where(moving > 0, (goal - reached) / moving.clamp_min(1e-30), LATE)
        later = torch.maximum(stop, later)
        if not bool((later > stop).any()):
            break
        stop = later
        steps = torch.minimum(stop * pace, room)
    return torch.where(weight > 0, steps, 0)


def _one_by_one(room: Tensor, weight: Tensor, pace: Tensor, goal: Tensor) -> Tensor:
    """The pixels of the largest weights, as few as meet the goal, use up their room: for L1."""
    order = pace.argsort(dim=1, descending=True, stable=True)
    heavy = weight.gather(1, order)
    free = room.gather(1, order)
    gain = heavy * free
    left = goal - (gain.cumsum(1) - gain)
    steps = torch.minimum(left.clamp_min(0) / heavy.clamp_min(1e-12), free)
    return torch.zeros_like(room).scatter(1, order, torch.where(heavy > 0, steps, 0))
