"""Detection by how far the classifier's answer moves under purification, in probabilities."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from jernih.classifiers import Classifier
from jernih.detectors.base import DETECTORS, Comparison
from jernih.purifiers import Purifier
from jernih.validate import InputError, check_number


@DETECTORS.register("jensen-shannon")
class JensenShannon(Comparison):
    r"""Jensen–Shannon divergence of the answers before and after (MagNet, arXiv:1705.09064).

    With p and q the probabilities for an image and for its restoration, made softer by a
    temperature T, and m their mean:

    .. math:: s(x) = \tfrac{1}{2} KL(p \,\|\, m) + \tfrac{1}{2} KL(q \,\|\, m),
        \qquad p = \mathrm{softmax}(f(x) / T)

    in nats, from 0 to log 2. High temperatures tell apart answers that are both sure of the same
    class; MagNet uses 10 and 40.

    Args:
        classifier: the defended classifier.
        purifier: what restores the images.
        temperature: T, above 0.

    Raises:
        InputError: for a temperature that is not above 0.
    """

    reference: ClassVar[str] = "arXiv:1705.09064"

    def __init__(
        self, classifier: Classifier, purifier: Purifier, temperature: float = 10.0
    ) -> None:
        super().__init__(classifier, purifier)
        if check_number("temperature", temperature, 0, 1e6) == 0:
            raise InputError("temperature", "a number above 0", temperature)
        self.temperature = temperature

    def compare(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the divergence for each image, float32 (N,)."""
        # Nearly equal answers differ in digits that single precision loses.
        p, q = ((logits.double() / self.temperature).log_softmax(1) for logits in (before, after))
        # A tensor, since the ONNX exporter would round a Python number to single precision.
        middle = p.logaddexp(q) - p.new_tensor(math.log(2))
        whole = p.exp() * (p - middle) + q.exp() * (q - middle)
        divergence: Tensor = whole.sum(1) / 2
        return divergence.clamp_min(0).float()
