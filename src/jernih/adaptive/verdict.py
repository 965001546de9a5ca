"""What the numbers of a gradient check add up to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

FEW = 0.1
"""A share of images up to this may lack a gradient, as those with a dead unit do."""

MANY = 0.5
"""A share of images above this is most of them."""

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
        step: the step, of those tried, at which slopes and differences agree best.
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


def find_faults(found: GradientCheck, *, averaged: bool, hidden: bool) -> Iterator[str]:
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
