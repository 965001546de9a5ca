"""Does the gradient that an attacker gets mean anything?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from jernih.adaptive.eot import Expectation
from jernih.adaptive.signs import (
    differing,
    gradient_of,
    in_training,
    like_probabilities,
    saturated,
    two_calls,
)
from jernih.attacks.losses import margin
from jernih.randomness import generator, seeded
from jernih.validate import InputError, check_count, check_images, check_labels

STEPS = (1e-3, 4e-3, 1.6e-2)
"""Steps of the finite differences, in L∞ on the scale of [0, 1]. Much smaller ones drown in the
rounding of float32; much larger ones leave the neighbourhood that a gradient speaks of."""

FEW = 0.1
"""A share of images up to this may lack a gradient, as those with a dead unit do."""

MANY = 0.5
"""A share of images above this is most of them."""

STRIDE = 4 / 255
"""How far along the gradient's sign the loss has to have grown: a stride of an attack."""

UPHILL = 0.75
"""On a lesser share of images the gradient does not tell which way the loss grows."""

ALIKE = 0.5
"""Below this cosine slopes and differences have little to do with each other."""

REPEATS = 0.2
"""Below this cosine the gradients of two calls have little to do with each other. Two estimates
of one gradient with this cosine have 0.45 with the gradient itself."""


@dataclass(frozen=True)
class GradientCheck:
    """How the gradient of the cross-entropy compares with what the loss does.

    Attributes:
        n: number of images.
        directions: number of random directions for each image.
        step: the step, of :data:`STEPS`, at which slopes and differences agree best.
        cosine: between slopes by the gradient and finite differences along random directions,
            the median over images that have a gradient; None where none has.
        relative_error: of the slope along the gradient itself against the finite difference, the
            median over the same images.
        uphill: the share of those images whose loss is higher a step of 4/255 along the sign of
            the gradient than one against it.
        zero: the share of images whose gradient is exactly zero.
        saturated: the share of images whose cross-entropy is rounded to zero.
        probabilities: all outputs are non-negative and sum to one.
        random: two calls with the same images differ.
        repeat_cosine: where they do, between the gradients of two calls, the median over images.
        faults: what is wrong, a sentence each.
    """

    n: int
    directions: int
    step: float
    cosine: float | None
    relative_error: float | None
    uphill: float | None
    zero: float
    saturated: float
    probabilities: bool
    random: bool
    repeat_cosine: float | None
    faults: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """What to make of it, in a sentence or more."""
        if self.faults or self.cosine is None:
            return " ".join(self.faults)
        if self.cosine < ALIKE:
            return (
                f"The gradient is a stand-in, as of a surrogate: along random directions it "
                f"agrees with finite differences to a cosine of no more than {self.cosine:.2f}, "
                f"but the loss grows along it on {self.uphill:.0%} of the images that have one."
            )
        return (
            f"The gradient tells what the loss does: along random directions it agrees with finite "
            f"differences to a cosine of {self.cosine:.3f}, and the loss grows along it on "
            f"{self.uphill:.0%} of the images that have one."
        )


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
    if in_training(model):
        raise InputError("model", "evaluation mode (call model.eval())", "training mode")
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
    return replace(numbers, faults=tuple(_faults(numbers, averaged=averaged, hidden=hidden)))


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


def _faults(found: GradientCheck, *, averaged: bool, hidden: bool) -> Iterator[str]:
    """What is wrong.

    Args:
        found: the numbers.
        averaged: the model takes the mean over draws.
        hidden: where the cross-entropy has no gradient, the margin of the logits has one.
    """
    if found.random and not averaged:
        yield (
            "The model is random: two calls with the same images differ, and so does the gradient. "
            "Attack its mean, jernih.adaptive.Expectation."
        )
    elif found.repeat_cosine is not None and found.repeat_cosine < REPEATS:
        yield (
            f"Even averaged, the gradients of two calls agree to a cosine of no more than "
            f"{found.repeat_cosine:.2f}. Take more samples."
        )
    if found.probabilities:
        yield (
            "The outputs are non-negative and sum to one, so they look like probabilities and not "
            "logits; another softmax flattens the gradient. Leave the model's own out."
        )
    flat = found.saturated > MANY
    if flat:
        yield (
            f"The loss is saturated: on {found.saturated:.0%} of {found.n} images the "
            f"cross-entropy is rounded to zero. Attack a difference of logits instead (the "
            f"margin, DLR)."
        )
    if found.zero > FEW:
        text = f"The gradient is exactly zero on {found.zero:.0%} of {found.n} images"
        if hidden:
            yield text + ", while that of the margin of the logits is not."
        elif flat or found.probabilities:
            yield text + "."
        else:
            yield (
                text + ": a step such as rounding or a codec stops it. Put jernih.adaptive.BPDA "
                "in its place."
            )
    if found.uphill is not None and found.uphill < UPHILL and not flat:
        yield (
            f"The gradient misleads: the loss grows along it, over a step of 4/255, on only "
            f"{found.uphill:.0%} of the images that have one."
        )
