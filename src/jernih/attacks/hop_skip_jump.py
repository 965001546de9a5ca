"""HopSkipJump: along a boundary that only the model's decisions show."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from jernih.attacks.asking import ask
from jernih.attacks.base import ATTACKS, MinimumNorm, distance
from jernih.attacks.draws import source
from jernih.attacks.penalty import check_positive
from jernih.types import Needs, Norm
from jernih.validate import check_choice, check_count, check_labels

AT_ONCE = 2**24
"""Most pixels that the model is asked about at once."""
QUESTIONS = 2048
"""Most images that it is asked about at once: with more of them small ones leave the cache."""
HALVINGS = 24
"""Most halvings of an interval: single precision has no more digits."""
BLENDING = 10
"""Halvings of the way from the image to the noise of the start: to a thousandth, as published."""
BEYOND = 1e-4
"""Share of the way that the result goes on: models round otherwise in batches of another size."""
LEAST = 1e-5
"""Least root mean square of what is added to look around: beyond single precision's rounding."""


@ATTACKS.register("hop-skip-jump")
class HopSkipJump(MinimumNorm):
    r"""HopSkipJump in L2 or L∞, by decisions alone (Chen et al., arXiv:1904.02144).

    The attacker learns which class the model names, and nothing else. The search starts from
    noise that the model gets wrong, moved towards the image as far as it stays wrong. Each
    step t estimates the direction in which the boundary lies from how the model decides on random
    points u around the present one,

    .. math:: v = \frac{1}{B_t} \sum_b \bigl(φ_b - \barφ\bigr)\, u_b,
        \qquad φ_b = \pm 1 \text{ for wrong and right}, \qquad B_t = B_0 \sqrt{t}

    goes along v (its sign in L∞) by the distance to the image over √t, or half of that as often as
    is needed to stay wrong, and then back towards the image until just before it would be right.
    The nearest point of all steps is kept.

    The u have the length that the publication gives them, the distance to the image over the
    number of pixels, but at least 1e-5 a pixel: in large images the published length is lost in
    the rounding of single precision, and v with it, above all in L∞.

    It halves intervals down to the model's rounding. A model that rounds otherwise when it is asked
    about another number of images sends the search another way, to a point as near on the average.

    Untargeted only: a targeted search starts from an image of the wanted class, for which a call
    has no argument, and one taken from the batch would make images depend on each other.

    Args:
        eps: largest perturbation in ``norm`` that counts; None for any.
        norm: ``"l2"`` or ``"linf"``.
        steps: number of steps. 40 of them ask about 17,600 times for each image.
        initial: B₀, the random points of the first step.
        most: the largest B.
        gamma: scale of how near to the boundary and how near to the point the search looks, 1 as
            published.
        tries: how many noise images are tried as a start, the first of them uniform, the others
            of random colour and contrast; where the model is right about all of them, the image
            stays clean.

    Raises:
        InputError: for another norm, counts below one, or a gamma that is not above 0.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(4, 2)
        >>> layer.weight.data = torch.tensor([[0.0, 0, 0, 0], [3, 0, 4, 0]])
        >>> layer.bias.data = torch.tensor([3.0, 0])
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), layer).eval()
        >>> images, labels = torch.full((1, 1, 2, 2), 0.5), torch.tensor([1])
        >>> attack = HopSkipJump(steps=10)  # the boundary is 0.5 / 5 away
        >>> drawn = torch.Generator().manual_seed(0)
        >>> round(float(attack(model, images, labels, generator=drawn).distances), 2)
        0.1
    """

    reference: ClassVar[str] = "arXiv:1904.02144"
    needs: ClassVar[Needs] = "decisions"

    def __init__(
        self,
        eps: float | str | None = None,
        *,
        norm: Norm = "l2",
        steps: int = 40,
        initial: int = 100,
        most: int = 10_000,
        gamma: float = 1.0,
        tries: int = 100,
    ) -> None:
        check_choice("norm", norm, ("l2", "linf"))
        self.norm = norm
        super().__init__(eps)
        self.steps = check_count("steps", steps)
        self.initial = check_count("initial", initial)
        self.most = check_count("most", most)
        self.gamma = check_positive("gamma", gamma)
        self.tries = check_count("tries", tries)

    def search(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return the nearest adversarial images found; where none was found, the image itself."""
        found = images.clone()
        seeds = torch.randint(2**62, (len(images),), generator=source(generator)).tolist()
        with torch.no_grad():
            logits = ask(model, images)
            check_labels(labels, len(images), logits.shape[1])
            todo = (~self.fooled(logits, labels)).nonzero().squeeze(1)
            draws = [torch.Generator().manual_seed(seeds[row]) for row in todo.tolist()]
            start, usable = self._start(model, images[todo], labels[todo], draws)
            todo, start = todo[usable], start[usable]
            draws = [own for own, good in zip(draws, usable.tolist(), strict=True) if good]
            if len(todo):
                found[todo] = self._walk(model, images[todo], labels[todo], start, draws)
        return found

    def _start(
        self, model: nn.Module, images: Tensor, labels: Tensor, draws: list[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """Noise that the model gets wrong, and for which images (N,) there is some."""
        start, usable = images.clone(), torch.zeros_like(labels, dtype=torch.bool)
        for number in range(self.tries):
            left = (~usable).nonzero().squeeze(1)
            if len(left) == 0:
                break
            noise = torch.stack(
                [_noise(images[row], number, draws[row]) for row in left.tolist()]
            ).to(images)
            wrong = self._wrong(model, noise, labels[left])
            start[left[wrong]], usable[left[wrong]] = noise[wrong], True
        return start, usable

    def _walk(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        start: Tensor,
        draws: list[torch.Generator],
    ) -> Tensor:
        """All steps, from points that the model gets wrong."""
        size = images[0].numel()
        if self.norm == "linf":
            start = self._approach(model, images, start, labels, blend=True)
        point = self._approach(model, images, start, labels)
        best, shortest = point, distance(images, point, self.norm)
        for step in range(1, self.steps + 1):
            far = distance(images, point, self.norm)
            radius = self._radius(far, step, size)
            count = int(min(self.initial * math.sqrt(step), self.most))
            way = self._direction(model, point, labels, radius, count, draws)
            point = self._forward(model, point, labels, way, far / math.sqrt(step))
            point = self._approach(model, images, point, labels)
            far = distance(images, point, self.norm)
            nearer = far < shortest
            best = torch.where(nearer.view(-1, 1, 1, 1), point, best)
            shortest = torch.where(nearer, far, shortest)
        beyond = (best + BEYOND * (best - images)).clamp(0, 1)
        wrong = self._wrong(model, beyond, labels)
        return torch.where(wrong.view(-1, 1, 1, 1), beyond, best)

    def _radius(self, far: Tensor, step: int, size: int) -> Tensor:
        """How far (N,) in L2 from points at such distances to look around."""
        # A fixed one at first: the start is far from where the search will be.
        published = torch.full_like(far, 0.1) if step == 1 else far * self.gamma / size
        return published.clamp_min(LEAST * math.sqrt(size))

    def _approach(
        self,
        model: nn.Module,
        images: Tensor,
        points: Tensor,
        labels: Tensor,
        *,
        blend: bool = False,
    ) -> Tensor:
        """Move points that are wrong towards their images, to just before they would be right.

        Along the straight line in L2 and for a ``blend``, else by cutting the largest changes.
        """
        size = images[0].numel()
        close = self.gamma / (size**1.5 if self.norm == "l2" else size**2)
        halvings = BLENDING if blend else min(HALVINGS, max(1, math.ceil(-math.log2(close))))
        straight = blend or self.norm == "l2"
        change, far = points - images, distance(images, points, "linf")
        low, high = torch.zeros_like(far), torch.ones_like(far)
        best = points
        for _ in range(halvings):
            middle = (low + high) / 2
            share = middle.view(-1, 1, 1, 1)
            most = far.view(-1, 1, 1, 1) * share
            tried = images + (share * change if straight else change.clamp(-most, most))
            wrong = self._wrong(model, tried, labels)
            best = torch.where(wrong.view(-1, 1, 1, 1), tried, best)
            low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
        return best

    def _direction(
        self,
        model: nn.Module,
        points: Tensor,
        labels: Tensor,
        radius: Tensor,
        count: int,
        draws: list[torch.Generator],
    ) -> Tensor:
        """Where the model errs more (N, C, H, W), of length 1 in L2 or a sign in L∞."""
        at_once = max(1, min(QUESTIONS, AT_ONCE // points[0].numel()))
        together = max(1, at_once // count)
        ways = torch.cat(
            [
                self._estimate(
                    model, points[rows], labels[rows], radius[rows], count, at_once, draws[rows]
                )
                for rows in (slice(k, k + together) for k in range(0, len(points), together))
            ]
        )
        if self.norm == "linf":
            return ways.sign()
        length = distance(torch.zeros_like(ways), ways, "l2").clamp_min(1e-12)
        return ways / length.view(-1, 1, 1, 1)

    def _estimate(
        self,
        model: nn.Module,
        points: Tensor,
        labels: Tensor,
        radius: Tensor,
        count: int,
        at_once: int,
        draws: list[torch.Generator],
    ) -> Tensor:
        """The published mean over random points, for images that are asked about together."""
        total, plain = torch.zeros_like(points), torch.zeros_like(points)
        answers = torch.zeros_like(radius)
        scale, centre = radius.view(-1, 1, 1, 1, 1), points[:, None]
        for begin in range(0, count, at_once):
            some = min(at_once, count - begin)
            drawn = torch.stack([self._drawn((some, *points.shape[1:]), own) for own in draws])
            drawn = drawn.to(points)
            around = (centre + scale * drawn).clamp(0, 1)
            asked = labels.repeat_interleave(some)
            signs = self._wrong(model, around.flatten(0, 1), asked).view(-1, some) * 2.0 - 1
            drawn = (around - centre) / scale
            total += torch.einsum("nb,nbchw->nchw", signs, drawn)
            plain += drawn.sum(1)
            answers += signs.sum(1)
        mean = (answers / count).view(-1, 1, 1, 1)
        # All alike: nothing to compare with, so all of them count as they are.
        return torch.where(mean.abs() == 1, total, total - mean * plain)

    def _drawn(self, shape: tuple[int, ...], own: torch.Generator) -> Tensor:
        """Random directions (B, C, H, W) of length 1."""
        if self.norm == "l2":
            drawn = torch.randn(shape, generator=own)
        else:
            drawn = torch.rand(shape, generator=own) * 2 - 1
        length: Tensor = torch.linalg.vector_norm(drawn, dim=(1, 2, 3), keepdim=True)
        return drawn / length

    def _forward(
        self, model: nn.Module, points: Tensor, labels: Tensor, way: Tensor, length: Tensor
    ) -> Tensor:
        """Go along ``way`` by ``length``, or by half of it as often as is needed to stay wrong."""
        moved, left = points.clone(), torch.arange(len(points), device=points.device)
        for _ in range(HALVINGS):
            tried = (points[left] + length[left].view(-1, 1, 1, 1) * way[left]).clamp(0, 1)
            wrong = self._wrong(model, tried, labels[left])
            moved[left[wrong]] = tried[wrong]
            left = left[~wrong]
            if len(left) == 0:
                break
            length = length / 2
        return moved

    def _wrong(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return self.fooled(ask(model, images), labels)


def _noise(image: Tensor, number: int, draws: torch.Generator) -> Tensor:
    """An image (C, H, W) of noise: uniform at first, then of random colour and contrast."""
    noise = torch.rand(image.shape, generator=draws)
    colour = torch.rand((len(image), 1, 1), generator=draws)
    contrast = torch.rand((), generator=draws)
    return noise if number == 0 else (colour + 2 * contrast**2 * (noise - 0.5)).clamp(0, 1)
