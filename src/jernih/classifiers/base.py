"""The classifier to defend: anyone's network behind one interface, images in [0, 1] → logits."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from jernih.classifiers.prepare import channels_last, fold_batch_norm, join_clips, spare_copies
from jernih.validate import InputError


class Classifier(nn.Module):
    """A network with its normalisation and its class names.

    Normalisation lives here and nowhere else, so that every perturbation is measured on the
    image as a person sees it. A network with a single logit z (sigmoid head) appears as two
    logits (0, z): their softmax is (1 − sigmoid(z), sigmoid(z)).

    Args:
        network: normalised images (N, C, H, W) → logits (N, K), or (N, 1) or (N,) for one logit.
        classes: names of the classes, in the order of the logits.
        mean: per-channel mean that the network expects to be subtracted; with one value the
            network gets the channels' average as its single channel.
        std: per-channel standard deviation to divide by.
        description: plain data that tells how to make the network again.

    Raises:
        InputError: for fewer than two or repeated classes, or a bad mean or std.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        classes: Sequence[str],
        *,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        description: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if len(classes) < 2 or len(set(classes)) != len(classes):
            raise InputError("classes", "two or more distinct names", list(classes))
        if len(mean) != len(std) or len(mean) not in (1, 3):
            raise InputError("mean and std", "one or three values each", (tuple(mean), tuple(std)))
        if min(std) <= 0:
            raise InputError("std", "positive values", tuple(std))
        self.network = network
        self.classes = tuple(classes)
        self.description = dict(description or {})
        self.register_buffer("mean", torch.tensor(list(mean)).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(list(std)).view(1, -1, 1, 1), persistent=False)
        self.memory_format = torch.contiguous_format

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, 3, H, W) in [0, 1]; returns logits (N, K).

        Raises:
            InputError: when the network gives another number of logits than there are classes.
        """
        if self.mean.shape[1] == 1:
            images = images.mean(1, keepdim=True)
        normalised = (images - self.mean) / self.std
        logits: Tensor = self.network(normalised.contiguous(memory_format=self.memory_format))
        if logits.ndim == 1:
            logits = logits.unsqueeze(1)
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        if logits.shape[1] != len(self.classes):
            raise InputError(
                "network output",
                f"{len(self.classes)} logits, one for each class",
                f"shape {tuple(logits.shape)}",
            )
        return logits

    def frozen(self) -> Self:
        """A copy made ready for attacks: same logits to 1e-4, several times faster on a CPU.

        Evaluation mode, parameters without gradient, batch norm folded into the convolutions,
        activations that copy nothing, channels-last memory. This classifier itself stays as it is.
        """
        with torch.no_grad():  # TorchScript copies its parameters by an operation
            ready = copy.deepcopy(self)
        ready.eval().requires_grad_(False)
        ready.network = spare_copies(join_clips(fold_batch_norm(ready.network)))
        ready.memory_format = torch.channels_last
        channels_last(ready.network)
        return ready
