"""Signs, read off a model and one batch, that attacks on it may be weaker than they look."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from jernih.attacks.losses import Loss, cross_entropy
from jernih.randomness import seeded
from jernih.validate import RANGE_TOLERANCE, check_logits

STEADY = 1e-4
"""Logits of two calls that differ by more than this share of their size were drawn, not rounded."""

SUM_TOLERANCE = 1e-3
"""How far from 1 probabilities may sum up to, in the precision that they come in."""


def like_probabilities(logits: Tensor) -> Tensor:
    """Which rows (N,) of logits (N, K) are non-negative and sum to one, as after a softmax."""
    return (logits >= 0).all(1) & ((logits.sum(1) - 1).abs() < SUM_TOLERANCE)


def saturated(logits: Tensor, labels: Tensor) -> Tensor:
    """For which images (N,) the cross-entropy is rounded to exactly zero."""
    return functional.cross_entropy(logits, labels, reduction="none") == 0


def differing(first: Tensor, second: Tensor) -> Tensor:
    """For which images (N,) two calls gave logits that differ by more than rounding."""
    size = first.abs().amax(1).clamp_min(1)
    return (first - second).abs().amax(1) > STEADY * size


def out_of_range(images: Tensor) -> Tensor:
    """Which images (N,) have a pixel outside [0, 1], by more than rounding, or one that is NaN."""
    inside = (images >= -RANGE_TOLERANCE) & (images <= 1 + RANGE_TOLERANCE)
    return ~inside.flatten(1).all(1)


def in_training(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules that are in training mode, "" for the model itself."""
    return tuple(name for name, module in model.named_modules() if module.training)


def gradient_of(
    model: nn.Module, images: Tensor, labels: Tensor, loss: Loss = cross_entropy
) -> tuple[Tensor, Tensor]:
    """Gradient of the loss to the images and the logits, neither with a graph.

    A model whose output does not depend on the images by any differentiable way has a gradient of
    zero, as it has for an attacker.
    """
    leaf = images.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        logits = check_logits(model(leaf), len(images))
        found = None
        if logits.requires_grad:
            values = loss(logits, labels).sum()
            (found,) = torch.autograd.grad(values, leaf, allow_unused=True)
    gradient = torch.zeros_like(images) if found is None else found.detach()
    return gradient, logits.detach()


def two_calls(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of two calls under different seeds of torch's own random numbers, left as they were.

    Raises:
        InputError: for a model that gives no logits.
    """
    answers = []
    for number in range(2):
        with seeded("two calls", number), torch.no_grad():
            answers.append(check_logits(model(images), len(images)))
    return answers[0], answers[1]
