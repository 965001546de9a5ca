"""Detection by whether what was taken away is what an attack would have added."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from jernih.attacks.losses import log_odds
from jernih.detectors.base import DETECTORS, Detector


@DETECTORS.register("gradient-alignment")
class GradientAlignment(Detector):
    r"""How far the purifier's correction lies along the classifier's gradient.

    .. math:: s(x) = \left| \cos\bigl( τ(x - x̂),\ τ(\nabla_{x̂}\, o_c(f(x̂))) \bigr) \right|,
        \qquad τ(v) = \tanh \frac{v}{\operatorname{mean} |v|}

    with x̂ the restored image, c the class that the classifier f predicts for it, and o the
    log-odds as in :class:`PredictionChange`; τ is a soft sign, since attacks within L∞ follow the
    gradient's sign (Goodfellow et al., arXiv:1412.6572). From 0 to 1. Noise and compression know
    nothing of the classifier: in a space of so many dimensions what they add is all but
    perpendicular to its gradient, however much it is. It takes one pass through the classifier
    forwards and one backwards, and no ONNX file can hold the latter.

    Args:
        classifier: the defended classifier, which must have a gradient.
        purifier: what restores the images.
    """

    reference: ClassVar[str] = "arXiv:1412.6572"

    def score(self, images: Tensor, restored: Tensor) -> Tensor:
        """Return the absolute cosine for each image (N,)."""
        known = torch.is_grad_enabled() and (images.requires_grad or restored.requires_grad)
        with torch.inference_mode(False), torch.enable_grad():
            shown = restored if restored.requires_grad else restored.clone().requires_grad_()
            logits = self.classifier(shown)
            odds = log_odds(logits, logits.detach().argmax(1)).sum()
            (slope,) = torch.autograd.grad(odds, shown, create_graph=known)
        taken = _soft_sign(images - restored)
        return functional.cosine_similarity(taken, _soft_sign(slope), dim=1).abs()


def _soft_sign(values: Tensor) -> Tensor:
    flat = values.flatten(1)
    size = flat.abs().mean(1, keepdim=True)
    return (flat / size.clamp_min(torch.finfo(size.dtype).tiny)).tanh()
