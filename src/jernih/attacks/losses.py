"""What attacks climb: a value for each image that grows as the model errs more.

Each function takes logits (N, K) and labels (N,) and returns values (N,). An untargeted attack
passes the true classes and climbs; a targeted one passes the classes to reach and descends, or
uses :func:`targeted_dlr`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from jernih.validate import InputError

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each image."""
    return functional.cross_entropy(logits, labels, reduction="none")


def other_classes(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """The most likely classes other than the labels, (N, count) or as many as there are."""
    known = logits.shape[1]
    own = functional.one_hot(labels, known).bool()
    return logits.masked_fill(own, -torch.inf).topk(min(count, known - 1), 1).indices


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The best other logit less the label's: above 0 just where the label is not the answer.

    Source: Carlini & Wagner, arXiv:1608.04644, with the opposite sign.
    """
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.masked_fill(functional.one_hot(labels, logits.shape[1]).bool(), -torch.inf)
    return others.max(1).values - own


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """The log-odds (N,) against each label.

    The cross-entropy is softplus of it: the gradients have one direction, but the cross-entropy's
    rounds to zero where the model is sure.
    """
    own = functional.one_hot(labels, logits.shape[1]).bool()
    return logits.masked_fill(own, -torch.inf).logsumexp(1) - logits[own]


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio (Croce & Hein, arXiv:2003.01690): the margin, free of scale.

    Raises:
        InputError: with fewer than three classes, where it is not defined.
    """
    if logits.shape[1] < 3:
        raise InputError("DLR loss", "three or more classes", logits.shape[1])
    ordered = logits.sort(1, descending=True).values
    return margin(logits, labels) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Targeted form of :func:`dlr`: grows as ``targets`` gain on ``labels``.

    Raises:
        InputError: with fewer than four classes, where it is not defined.
    """
    if logits.shape[1] < 4:
        raise InputError("targeted DLR loss", "four or more classes", logits.shape[1])
    ordered = logits.sort(1, descending=True).values
    own = logits.gather(1, labels[:, None]).squeeze(1)
    wanted = logits.gather(1, targets[:, None]).squeeze(1)
    scale = ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + 1e-12
    return (wanted - own) / scale
