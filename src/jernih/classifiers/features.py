"""What a classifier's last linear layer is given."""

from __future__ import annotations

from torch import Tensor, nn

from jernih.classifiers.base import Classifier
from jernih.validate import InputError


def logits_and_features(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and features (N, D) of images (N, 3, H, W), from one pass.

    Raises:
        InputError: for a network without a linear layer that can be seen, such as a program.
    """
    linear = [layer for layer in classifier.network.modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise InputError("classifier", "a network with a linear layer", "none that can be seen")
    kept: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        kept.append(inputs[0])

    handle = linear[-1].register_forward_pre_hook(keep)
    try:
        logits: Tensor = classifier(images)
    finally:
        handle.remove()
    return logits, kept[-1].flatten(1)
