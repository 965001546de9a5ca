"""The checks at every public boundary.

Each failure names the argument, what was expected, and what came instead. torch is imported where
tensors are checked, so that a command that needs none starts at once.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

RANGE_TOLERANCE = 1e-6
"""How far outside [0, 1] a pixel may lie through rounding before it counts as an error."""


class InputError(ValueError):
    """Something that the user gave is wrong; the message is one line fit to be shown as it is.

    Args:
        argument: the name of the argument, key or file at fault.
        expected: what it should have been.
        got: what it was.
        hint: an addition in brackets, such as the nearest known name.
    """

    def __init__(self, argument: str, expected: str, got: object, hint: str = "") -> None:
        text = f"{argument}: expected {expected}; got {got}"
        super().__init__(" ".join((text + (f" ({hint})" if hint else "")).split()))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it by its message, so that it comes whole out of another process."""
        return _from_message, (type(self), self.args, self.__dict__)


def _from_message(
    kind: type[InputError], args: tuple[Any, ...], held: dict[str, Any]
) -> InputError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(held)
    return error


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like ``name``, or None when none is alike."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return found[0] if found else None


def check_choice(argument: str, value: str, choices: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``choices``.

    Raises:
        InputError: otherwise, naming the nearest choice.
    """
    if value in choices:
        return value
    like = nearest(str(value), choices)
    listed = ", ".join(repr(choice) for choice in choices) or "nothing (none are known)"
    raise InputError(
        argument, f"one of {listed}", repr(value), f"nearest: {like!r}" if like else ""
    )


def check_number(argument: str, value: float, low: float, high: float) -> float:
    """Return ``value`` as a float if it is finite and within [``low``, ``high``].

    Raises:
        InputError: otherwise.
    """
    wanted = f"a number in [{low:g}, {high:g}]"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(argument, wanted, repr(value))
    if not math.isfinite(value) or not low <= value <= high:
        raise InputError(argument, wanted, value)
    return float(value)


def check_count(argument: str, value: int, low: int = 1) -> int:
    """Return ``value`` if it is a whole number from ``low`` on.

    Raises:
        InputError: otherwise.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise InputError(argument, f"a whole number from {low} on", repr(value))
    return value


def parse_eps(value: float | str, argument: str = "eps", most: float = 1.0) -> float:
    """Read a perturbation size, given as a number or a fraction such as ``"4/255"``.

    Args:
        value: the size on the scale of images in [0, 1].
        argument: the name to use in an error.
        most: the largest that makes sense: 1 for L∞, more for norms that add pixels up.

    Returns:
        the size as a float in [0, ``most``].

    Raises:
        InputError: when it is neither, negative, or above ``most``.

    Example:
        >>> round(parse_eps("4/255"), 6)
        0.015686
    """
    if isinstance(value, str):
        try:
            value = float(Fraction(value.replace(" ", "")))
        except (ValueError, ArithmeticError):
            raise InputError(
                argument, "a number or a fraction such as 4/255", repr(value)
            ) from None
    return check_number(argument, value, 0.0, most)


def check_images(images: Tensor, argument: str = "images") -> Tensor:
    """Return ``images`` if they are what every part of Jernih works on.

    Args:
        images: float32 tensor (N, C, H, W) with values in [0, 1], N ≥ 1. Values outside by at
            most :data:`RANGE_TOLERANCE` are taken for rounding and clamped.
        argument: the name to use in an error.

    Raises:
        InputError: for another type, shape or dtype, for NaN, and for values outside [0, 1]
            (the commonest cause: images normalised by mean and standard deviation).
    """
    import torch

    if not isinstance(images, torch.Tensor):
        raise InputError(argument, "a torch.Tensor", f"a {type(images).__name__}")
    if images.ndim != 4 or 0 in images.shape:
        raise InputError(argument, "a non-empty tensor of shape (N, C, H, W)", tuple(images.shape))
    if images.dtype is not torch.float32:
        raise InputError(argument, "dtype torch.float32", str(images.dtype))
    low, high = (float(v) for v in torch.aminmax(images.detach()))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(argument, "finite values", "NaN or infinity")
    if low < -RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        raise InputError(
            argument,
            "values in [0, 1]",
            f"values from {low:.4g} to {high:.4g}",
            "normalisation by mean and std belongs inside the classifier",
        )
    return images.clamp(0, 1) if low < 0 or high > 1 else images


def check_labels(labels: Tensor, count: int, classes: int | None = None) -> Tensor:
    """Return ``labels`` if they are int64 (``count``,) within [0, ``classes``).

    Raises:
        InputError: otherwise, with the first label that is outside.
    """
    import torch

    if not isinstance(labels, torch.Tensor):
        raise InputError("labels", "a torch.Tensor", f"a {type(labels).__name__}")
    if labels.dtype is not torch.int64:
        raise InputError("labels", "dtype torch.int64", str(labels.dtype))
    if tuple(labels.shape) != (count,):
        raise InputError("labels", f"shape ({count},)", tuple(labels.shape))
    if classes is not None:
        outside = labels[(labels < 0) | (labels >= classes)]
        if len(outside):
            raise InputError("labels", f"class indices in [0, {classes - 1}]", int(outside[0]))
    return labels


def check_logits(logits: Any, count: int, argument: str = "model output") -> Tensor:
    """Return ``logits`` if a model gave a finite floating-point tensor (``count``, K), K ≥ 2.

    Raises:
        InputError: otherwise.
    """
    import torch

    if not isinstance(logits, torch.Tensor) or not logits.is_floating_point():
        kind = logits.dtype if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise InputError(argument, "a floating-point tensor of logits", str(kind))
    if logits.ndim != 2 or logits.shape[0] != count or logits.shape[1] < 2:
        raise InputError(
            argument,
            f"logits of shape ({count}, K) with K of at least 2",
            tuple(logits.shape),
            "wrap a one-logit model in jernih.classifiers.Classifier",
        )
    if not bool(torch.isfinite(logits.detach()).all()):
        raise InputError(argument, "finite logits", "NaN or infinity")
    return logits
