"""What a purifier's training weighs against each other: pixels, logits, features and maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from jernih.classifiers import Classifier
from jernih.classifiers.features import logits_and_features
from jernih.config import Guidance
from jernih.validate import InputError


def _charbonnier(restored: Tensor, clean: Tensor) -> Tensor:
    # Smooth L1 of Charbonnier et al. (ICIP 1994): a bend of one grey level of 255.
    return ((restored - clean).square() + (1 / 255) ** 2).sqrt().mean() - 1 / 255


SCALES = (0.0448, 0.2856, 0.3001)
"""Weights of the three finest of Wang et al.'s five scales; the others want sides above 160."""
LEAST_SIDE = 44


def _ms_ssim(restored: Tensor, clean: Tensor) -> Tensor:
    # The mix of structure and values of Zhao et al. (arXiv:1511.08861).
    if min(restored.shape[-2:]) < LEAST_SIDE:
        wanted = f"images of at least {LEAST_SIDE} px for ms-ssim"
        raise InputError("guidance.pixel", wanted, tuple(restored.shape[-2:]))
    # Variances are small differences of squares, which half precision would lose.
    with torch.autocast(restored.device.type, enabled=False):
        alike = multiscale_structural_similarity_index_measure(
            restored.float(),
            clean.float(),
            data_range=1.0,
            betas=tuple(scale / sum(SCALES) for scale in SCALES),
            normalize="relu",
        )
    loss: Tensor = 0.84 * (1 - alike) + 0.16 * functional.l1_loss(restored, clean)
    return loss


PIXEL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "charbonnier": _charbonnier,
    "ms-ssim": _ms_ssim,
}


@dataclass(frozen=True)
class Seen:
    """What the classifier makes of images.

    Attributes:
        log_probabilities: (N, K).
        features: what enters its last linear layer, (N, D), where that is weighed.
        maps: outputs of some of its convolutions, each (N, C, H, W).
    """

    log_probabilities: Tensor
    features: Tensor | None = None
    maps: tuple[Tensor, ...] = ()


class Guide:
    r"""Measures how far the classifier is from seeing the clean image in the restored one.

    .. math:: L = w_p\, ℓ(x̂, x) + w_z\, KL\bigl(p(x) \,\|\, p(x̂)\bigr) + w_f\, d(φ(x̂), φ(x))
        + \frac{w_m}{L} \sum_l d(m_l(x̂), m_l(x)),
        \qquad d(a, b) = \frac{\lVert a - b \rVert_1}{\lVert b \rVert_1}

    with x the clean image, x̂ the restored one, p the classifier's probabilities, φ what enters its
    last linear layer and m the outputs of some convolutions on the way there. Guidance by logits
    and by features is that of Liao et al. (HGD, arXiv:1712.02976); maps from between are the
    perceptual loss of Johnson et al. (arXiv:1603.08155), a gradient for every place of the image.
    None of them needs labels.

    Args:
        classifier: a frozen classifier.
        settings: the weights and the pixel loss.

    Raises:
        InputError: for more layers than the classifier has convolutions that can be seen.
    """

    def __init__(self, classifier: Classifier, settings: Guidance) -> None:
        self.classifier = classifier
        self.settings = settings
        self.layers = _spread(classifier, settings.layers)

    def pixels(self, restored: Tensor, clean: Tensor) -> Tensor:
        """The loss' part without the classifier, a scalar."""
        return self.settings.pixel_weight * PIXEL[self.settings.pixel](restored, clean)

    def __call__(self, restored: Tensor, clean: Tensor, target: Seen | None = None) -> Tensor:
        """Loss, a scalar, of restored images (N, 3, H, W) against the clean ones.

        ``target`` is what :meth:`look` said of the clean ones, when that is known already.
        """
        wanted = self.settings
        loss = self.pixels(restored, clean)
        if not wanted.logits and not wanted.features and not self.layers:
            return loss
        if target is None:
            with torch.no_grad():
                target = self.look(clean)
        seen = self.look(restored)
        loss = loss + wanted.logits * functional.kl_div(
            seen.log_probabilities, target.log_probabilities, log_target=True, reduction="batchmean"
        )
        if seen.features is not None and target.features is not None:
            loss = loss + wanted.features * _apart(seen.features, target.features)
        for maps, clean_maps in zip(seen.maps, target.maps, strict=True):
            loss = loss + wanted.layers_weight / len(self.layers) * _apart(maps, clean_maps)
        return loss

    def look(self, images: Tensor) -> Seen:
        """What the classifier makes of images (N, 3, H, W), as far as it is weighed."""
        maps: list[Tensor] = []

        def keep(_: nn.Module, __: Any, made: Tensor) -> None:
            maps.append(made.clone())  # activations after it may work in place

        handles = [layer.register_forward_hook(keep) for layer in self.layers]
        try:
            if self.settings.features:
                logits, features = logits_and_features(self.classifier, images)
                return Seen(logits.log_softmax(1), features, tuple(maps))
            return Seen(self.classifier(images).log_softmax(1), None, tuple(maps))
        finally:
            for handle in handles:
                handle.remove()


def _apart(values: Tensor, others: Tensor) -> Tensor:
    return (values - others).abs().mean() / others.abs().mean().clamp_min(1e-6)


def _spread(classifier: Classifier, count: int) -> list[nn.Conv2d]:
    """So many convolutions over all channels, evenly spread from the first to the last."""
    layers = [
        layer
        for layer in classifier.network.modules()
        if isinstance(layer, nn.Conv2d) and layer.groups == 1
    ]
    if count > len(layers):
        raise InputError("guidance.layers", f"at most {len(layers)} convolutions", count)
    return [layers[(k + 1) * len(layers) // (count + 1)] for k in range(count)]
