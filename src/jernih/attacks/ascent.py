"""The runs of Auto-PGD: where each image stands, and how it goes on from there."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import ClassVar, Self

import torch
from torch import Tensor

from jernih.attacks.base import project, unit
from jernih.attacks.draws import in_ball, normal
from jernih.types import Norm


@dataclass
class Ascent:
    """A run in L∞ or L2; each tensor has a row for each image still at work.

    Attributes:
        norm: the norm of the bound.
        eps: the bound.
        row: the image's place in the batch.
        image: the image as it was.
        label: its label.
        goal: the class that the loss is given.
        step: size of its steps (N, 1, 1, 1).
        point: where it is.
        before: where it was.
        value: the loss at the point.
        slope: the gradient of the loss there.
        top: the point of the highest loss.
        top_value: the loss there.
        top_slope: the gradient there.
        rises: how many steps since the last checkpoint raised the loss.
        checked: the highest loss at the last checkpoint.
        kept: whether the last checkpoint left the size of the steps as it was.
    """

    norm: Norm
    eps: float
    row: Tensor
    image: Tensor
    label: Tensor
    goal: Tensor
    step: Tensor
    point: Tensor
    before: Tensor
    value: Tensor
    slope: Tensor
    top: Tensor
    top_value: Tensor
    top_slope: Tensor
    rises: Tensor
    checked: Tensor
    kept: Tensor

    longest: ClassVar[float] = 2.0
    """Size of the first steps, in bounds."""

    @classmethod
    def begin(
        cls,
        norm: Norm,
        eps: float,
        start: Tensor,
        images: Tensor,
        labels: Tensor,
        goals: Tensor,
    ) -> Self:
        """A run from ``start``, where the model has not been asked yet."""
        low = torch.full_like(start[:, 0, 0, 0], -torch.inf)
        return cls(
            norm=norm,
            eps=eps,
            row=torch.arange(len(start), device=start.device),
            image=images,
            label=labels,
            goal=goals,
            step=torch.full_like(start[:, :1, :1, :1], cls.longest * eps),
            point=start,
            before=start,
            value=-low,
            slope=torch.zeros_like(start),
            top=start,
            top_value=low,
            top_slope=torch.zeros_like(start),
            rises=torch.zeros_like(labels),
            checked=low,
            kept=torch.zeros_like(labels, dtype=torch.bool),
        )

    @staticmethod
    def checkpoints(steps: int) -> dict[int, int]:
        """The checkpoints among so many steps, and how many steps lie before each."""
        period, least, less = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
        found, number = {}, period
        while number <= steps:
            found[number] = period
            period = max(period - less, least)
            number += period
        return found

    def move(self, *, first: bool) -> None:
        """Take a step, the ``first`` of them without momentum."""
        share = 1.0 if first else 0.75
        way = self.slope.sign() if self.norm == "linf" else unit(self.slope)
        stepped = self._inside(self.point + self.step * way)
        momentum = self.point - self.before
        moved = self.point + share * (stepped - self.point) + (1 - share) * momentum
        self.point, self.before = self._inside(moved), self.point

    def note(self, values: Tensor, slopes: Tensor) -> None:
        """Take in what the model says at the point."""
        self.rises = self.rises + (values > self.value)
        self.value, self.slope = values, slopes
        higher = values > self.top_value
        wide = higher.view(-1, 1, 1, 1)
        self.top = torch.where(wide, self.point, self.top)
        self.top_slope = torch.where(wide, slopes, self.top_slope)
        self.top_value = torch.where(higher, values, self.top_value)

    def check(self, enough: float) -> None:
        """At a checkpoint, halve the steps where the loss rose ``enough`` times or less."""
        halve = (self.rises <= enough) | (self.kept & (self.top_value <= self.checked))
        self.step = torch.where(halve.view(-1, 1, 1, 1), self.step / 2, self.step)
        self._return(halve)
        self.rises = torch.zeros_like(self.rises)
        self.checked, self.kept = self.top_value, ~halve

    def keep(self, which: Tensor) -> None:
        """Go on with some of the images."""
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Tensor):
                setattr(self, one.name, value[which])

    def _return(self, which: Tensor) -> None:
        """Go back to the point of the highest loss."""
        wide = which.view(-1, 1, 1, 1)
        self.point = torch.where(wide, self.top, self.point)
        self.slope = torch.where(wide, self.top_slope, self.slope)

    def _inside(self, points: Tensor) -> Tensor:
        return (self.image + project(points - self.image, self.norm, self.eps)).clamp(0, 1)


@dataclass
class SparseAscent(Ascent):
    """A run in L1 (Croce & Hein, arXiv:2103.01208): along few pixels, and how few is learnt.

    Attributes:
        share: which share of the pixels a step moves.
        spread: how many pixels the point of the highest loss had moved at the last checkpoint.
    """

    share: Tensor = field(init=False)
    spread: Tensor = field(init=False)

    longest: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        """Start with a fifth of the pixels."""
        self.share = torch.full_like(self.top_value, 0.2)
        self.spread = torch.full_like(self.top_value, self.image[0].numel())

    @staticmethod
    def checkpoints(steps: int) -> dict[int, int]:
        """The checkpoints among so many steps, and how many steps lie before each."""
        period = max(int(0.04 * steps), 1)
        return dict.fromkeys(range(period, steps + 1, period), period)

    def move(self, *, first: bool) -> None:
        """Take a step along the signs of the largest values of the gradient."""
        flat = self.slope.flatten(1)
        size = flat.shape[1]
        rank = ((1 - self.share) * size).long().clamp(0, size - 1)
        magnitude = flat.abs()
        least = magnitude.sort(1).values.gather(1, rank[:, None])
        signs = torch.where(magnitude >= least, flat.sign(), 0)
        way = (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).view_as(self.slope)
        self.point, self.before = self._inside(self.point + self.step * way), self.point

    def check(self, enough: float) -> None:
        """At a checkpoint, go back with full steps where the best perturbation grew sparser."""
        spread = (self.top != self.image).flatten(1).sum(1).to(self.spread)
        sparser = spread < 0.95 * self.spread
        whole = self.longest * self.eps
        shorter = (self.step / 1.5).clamp_min(whole / 10)
        self.step = torch.where(sparser.view(-1, 1, 1, 1), whole, shorter)
        self.share, self.spread = spread / self.image[0].numel() / 1.5, spread
        self._return(sparser)

    def _inside(self, points: Tensor) -> Tensor:
        return self.image + project_l1_in_range(self.image, points - self.image, self.eps)


def random_start(
    images: Tensor, norm: Norm, eps: float, generator: torch.Generator | None
) -> Tensor:
    """A random point for each image: of the ball's surface, before pixels are clipped to [0, 1]."""
    if norm == "l1":
        return images + project_l1_in_range(images, normal(images, generator), eps)
    if norm == "linf":
        noise = in_ball(images, norm, generator)
        noise = noise / noise.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
    else:
        noise = unit(normal(images, generator))
    return (images + eps * noise).clamp(0, 1)


def project_l1_in_range(images: Tensor, delta: Tensor, eps: float) -> Tensor:
    """The nearest perturbations of L1 size at most ``eps`` that leave the images in [0, 1].

    Each value shrinks by the same amount λ, to no less than 0 and no more than its pixel leaves
    room for. How much is left in all falls with λ in straight pieces, between values at which a
    pixel comes to its room or to 0: sorted, they tell the piece in which ``eps`` is left.
    """
    wanted = delta.flatten(1).double()
    room = torch.where(delta > 0, 1 - images, images).flatten(1).double()
    size = wanted.abs()
    ends = torch.cat([size, (size - room).clamp_min(0)], 1)
    signs = torch.ones_like(ends)
    signs[:, size.shape[1] :] = -1
    ends, order = ends.sort(1, descending=True)
    count = signs.gather(1, order).cumsum(1)
    total = (signs.gather(1, order) * ends).cumsum(1)
    # The piece before the first end at which more than eps is left, or the last piece.
    piece = ((total - count * ends) <= eps).sum(1, keepdim=True).sub(1).clamp_min(0)
    cut = (total.gather(1, piece) - eps) / count.gather(1, piece).clamp_min(1)
    fits = size.minimum(room).sum(1, keepdim=True) <= eps
    left = (size - torch.where(fits, 0, cut)).clamp_min(0).minimum(room)
    return (wanted.sign() * left).to(delta).view_as(delta)
