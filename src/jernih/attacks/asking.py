"""How attacks ask a model: about a part of the batch at a time, as many images as are worth it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jernih.attacks.losses import Loss, cross_entropy
from jernih.validate import check_labels, check_logits

AT_ONCE = 8 * 224 * 224
"""Pixels that a model is asked about at once on a CPU.

With more of them the network's activations leave the cache, and the C library takes fresh pages
from the system for each: a gradient of MobileNetV2 takes up to three times as long.
"""


def parts(images: Tensor) -> list[slice]:
    """The rows of ``images`` (N, C, H, W) to ask about together; on an accelerator all of them.

    Where a part begins does not depend on N.
    """
    count = len(images)
    if images.device.type != "cpu":
        return [slice(0, count)]
    most = max(1, AT_ONCE // images[0, 0].numel()) if count else 1
    return [slice(start, min(start + most, count)) for start in range(0, max(count, 1), most)]


def ask(model: nn.Module, images: Tensor) -> Tensor:
    """The logits (N, K) of images, without a graph.

    Raises:
        InputError: for a model that gives no logits.
    """
    with torch.no_grad():
        return torch.cat(
            [check_logits(model(some), len(some)) for some in (images[p] for p in parts(images))]
        )


def slope(
    model: nn.Module, images: Tensor, labels: Tensor, loss: Loss = cross_entropy
) -> tuple[Tensor, Tensor]:
    """Gradient of the loss to the images (N, C, H, W), and the logits (N, K), without a graph.

    Raises:
        InputError: for a model that gives no logits, and labels that it has no class for.
    """
    gradients, answers = [], []
    for rows in parts(images):
        leaf = images[rows].detach().clone().requires_grad_(True)
        with torch.enable_grad():
            logits = check_logits(model(leaf), len(leaf))
            check_labels(labels, len(images), logits.shape[1])
            values = loss(logits, labels[rows])
            (gradient,) = torch.autograd.grad(values.sum(), leaf)
        gradients.append(gradient)
        answers.append(logits.detach())
    return torch.cat(gradients), torch.cat(answers)
