"""Does the gradient that an attacker gets mean anything?"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from jernih.adaptive.eot import Expectation
from jernih.adaptive.signs import (
    differing,
    gradient_of,
    like_probabilities,
    saturated,
    two_calls,
)
from jernih.adaptive.verdict import MANY, GradientCheck, find_faults
from jernih.attacks.base import check_model
from jernih.attacks.losses import margin
from jernih.randomness import generator, seeded
from jernih.validate import check_count, check_images, check_labels

STEPS = (1e-3, 4e-3, 1.6e-2)
"""Steps of the finite differences, in L∞ on the scale of [0, 1]. Much smaller ones drown in the
rounding of float32; much larger ones leave the neighbourhood that a gradient speaks of."""

STRIDE = 4 / 255
"""How far along the gradient's sign the loss has to have grown: a stride of an attack."""


def check_gradients(
    model: nn.Module, images: Tensor, labels: Tensor, *, directions: int = 8, seed: int = 0
) -> GradientCheck:
    """Compare the gradient that an attack would get with finite differences of the loss.

    For each image the slopes along some random directions of signs, as many as an attack in L∞
    might step along, and along the gradient itself. Pixels nearer to 0 or 1 than the largest step
    are moved inwards first. Differences are taken of the float64 loss of the model's logits, so
    that a small loss is not lost to rounding; for a random model all of them are taken on the same
    draws, and whether draws differ is looked at by itself.

    A model that passes can still hide its weakness: the check sees the neighbourhood of the images,
    and a gradient that tells what the loss does there.

    Args:
        model: images → logits (N, K), in evaluation mode; it stays as it is.
        images: float32 (N, C, H, W) in [0, 1]; a dozen will do.
        labels: true classes, int64 (N,).
        directions: random directions for each image. The model is asked 6 times for each.
        seed: seed of the directions and of a random model's draws.

    Raises:
        InputError: for arguments of another form, and for a model in training mode.

    Example:
        >>> import torch
        >>> from jernih.randomness import seeded
        >>> with seeded(0):
        ...     network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
        ...     images = torch.rand(4, 3, 2, 2)
        >>> labels = network(images).argmax(1)
        >>> check_gradients(network, images, labels).faults
        ()
        >>> class Rounding(torch.nn.Module):
        ...     def forward(self, images):
        ...         return (images * 7).round() / 7
        >>> defended = torch.nn.Sequential(Rounding(), network).eval()
        >>> check_gradients(defended, images, labels).verdict[:49]
        'The gradient is exactly zero on 100% of 4 images:'
    """
    images = check_images(images).clamp(STEPS[-1], 1 - STEPS[-1])
    check_count("directions", directions)
    check_model(model)
    same = _SameDraws(model, seed)
    random, repeat = _repeat(model, images, labels)
    gradient, logits = gradient_of(same, images, labels)
    has = gradient.flatten(1).ne(0).any(1)
    compared = _compare(same, images[has], labels[has], gradient[has], directions, seed)
    by_margin, _ = gradient_of(same, images, labels, margin)
    same.put_back()
    numbers = GradientCheck(
        n=len(images),
        directions=directions,
        step=compared[0],
        cosine=compared[1],
        relative_error=compared[2],
        uphill=compared[3],
        zero=_share(~has),
        saturated=_share(saturated(logits, labels)),
        probabilities=bool(like_probabilities(logits).all()),
        random=random,
        repeat_cosine=repeat,
        faults=(),
    )
    averaged = any(isinstance(module, Expectation) for module in model.modules())
    hidden = _share(by_margin[~has].flatten(1).ne(0).any(1)) > MANY
    return replace(numbers, faults=tuple(find_faults(numbers, averaged=averaged, hidden=hidden)))


class _SameDraws(nn.Module):
    """A model that may be random, answering with the same draws each time."""

    def __init__(self, model: nn.Module, seed: int) -> None:
        super().__init__()
        self.model = model
        self.seed = seed
        sources = [m.generator for m in model.modules() if isinstance(m, Expectation)]
        self._states = [(source, source.get_state()) for source in sources]

    def forward(self, images: Tensor) -> Tensor:
        self.put_back()
        with seeded("same draws", self.seed):
            logits: Tensor = self.model(images)
        return logits

    def put_back(self) -> None:
        """Give the sources of draws the states that they had."""
        for source, state in self._states:
            source.set_state(state)


def _repeat(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[bool, float | None]:
    """Whether two calls differ, and then the median cosine between their gradients."""
    first, second = two_calls(model, images)
    check_labels(labels, len(images), first.shape[1])
    if not bool(differing(first, second).any()):
        return False, None
    gradients = []
    for number in range(2):
        with seeded("two gradients", number):
            gradients.append(gradient_of(model, images, labels)[0].flatten(1))
    alike = functional.cosine_similarity(gradients[0], gradients[1], eps=1e-30)
    return True, float(alike.median())


def _compare(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    gradient: Tensor,
    directions: int,
    seed: int,
) -> tuple[float, float | None, float | None, float | None]:
    """The best step; cosine and relative error at it; and the share of images that go uphill."""
    if len(images) == 0:
        return STEPS[0], None, None, None
    source = generator("directions", seed)
    signs = [
        torch.randint(2, images.shape, generator=source).to(images) * 2 - 1
        for _ in range(directions)
    ]
    slopes = torch.stack([_inner(gradient, way) for way in signs], dim=1)
    steepest = gradient / gradient.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
    steepness = _inner(gradient, steepest)
    best = (STEPS[0], -torch.inf, torch.inf)
    for step in STEPS:
        met = torch.stack([_difference(model, images, labels, step * w) for w in signs], 1) / step
        cosine = float(functional.cosine_similarity(slopes, met, eps=1e-30).median())
        rise = _difference(model, images, labels, step * steepest) / step
        error = float(((rise - steepness) / steepness).abs().median())
        if cosine > best[1]:
            best = (step, cosine, error)
    uphill = _difference(model, images, labels, STRIDE * gradient.sign()) > 0
    return *best, _share(uphill)


@torch.no_grad()
def _difference(model: nn.Module, images: Tensor, labels: Tensor, way: Tensor) -> Tensor:
    """Half of what the loss (N,) gains from one side of the images to the other."""
    ahead, behind = (
        functional.cross_entropy(model(images + side * way).double(), labels, reduction="none")
        for side in (1, -1)
    )
    return (ahead - behind) / 2


def _inner(first: Tensor, second: Tensor) -> Tensor:
    return (first.double() * second.double()).flatten(1).sum(1)


def _share(mask: Tensor) -> float:
    return float(mask.double().mean()) if len(mask) else 0.0
