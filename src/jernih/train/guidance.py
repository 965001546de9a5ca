"""What a purifier's training weighs against each other: pixels, logits and features."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from jernih.classifiers import Classifier
from jernih.classifiers.features import logits_and_features
from jernih.config import Guidance


def _charbonnier(restored: Tensor, clean: Tensor) -> Tensor:
    # Smooth L1 of Charbonnier et al. (ICIP 1994): a bend of one grey level of 255.
    return ((restored - clean).square() + (1 / 255) ** 2).sqrt().mean() - 1 / 255


PIXEL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "charbonnier": _charbonnier,
}


class Guide:
    r"""Measures how far the classifier is from seeing the clean image in the restored one.

    .. math:: L = w_p\, ℓ(x̂, x) + w_z\, KL\bigl(p(x) \,\|\, p(x̂)\bigr)
        + w_f\, \frac{\lVert φ(x̂) - φ(x) \rVert_1}{\lVert φ(x) \rVert_1}

    with x the clean image, x̂ the restored one, p the classifier's probabilities and φ what enters
    its last linear layer. The last two terms are the guidance by logits and by features of Liao et
    al. (HGD, arXiv:1712.02976); they need no labels.

    Args:
        classifier: a frozen classifier.
        settings: the weights and the pixel loss.
    """

    def __init__(self, classifier: Classifier, settings: Guidance) -> None:
        self.classifier = classifier
        self.settings = settings

    def __call__(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Loss, a scalar, of restored images (N, 3, H, W) against the clean ones."""
        wanted = self.settings
        loss = wanted.pixel_weight * PIXEL[wanted.pixel](restored, clean)
        if not wanted.logits and not wanted.features:
            return loss
        with torch.no_grad():
            target, features = self._see(clean)
        seen, restored_features = self._see(restored)
        loss = loss + wanted.logits * functional.kl_div(
            seen, target, log_target=True, reduction="batchmean"
        )
        if features is not None and restored_features is not None:
            apart = (restored_features - features).abs().mean()
            loss = loss + wanted.features * apart / features.abs().mean().clamp_min(1e-6)
        return loss

    def _see(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logarithms of the probabilities, and the features where they are wanted."""
        if self.settings.features:
            logits, features = logits_and_features(self.classifier, images)
            return logits.log_softmax(1), features
        return self.classifier(images).log_softmax(1), None
