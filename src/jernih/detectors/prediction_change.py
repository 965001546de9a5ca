"""Detection by how much of its lead the predicted class loses under purification."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from jernih.attacks.losses import log_odds
from jernih.detectors.base import DETECTORS, Comparison


@DETECTORS.register("prediction-change")
class PredictionChange(Comparison):
    r"""The log-odds that the predicted class loses when the image is restored.

    With c the class that the classifier f predicts for the image as it came:

    .. math:: s(x) = o_c(f(x)) - o_c(f(\mathrm{AE}(x))),
        \qquad o_c(z) = z_c - \log \sum_{k \ne c} e^{z_k}

    Above the lead itself the restored image is of another class. Log-odds, unlike probabilities,
    still tell apart answers that are all but certain. That an attacked image's class is less stable
    than a clean one's is what several detectors go by, among them Roth et al. (arXiv:1902.04818).

    Args:
        classifier: the defended classifier.
        purifier: what restores the images.
    """

    reference: ClassVar[str] = "arXiv:1902.04818"

    def compare(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the loss of log-odds for each image (N,)."""
        predicted = before.argmax(1)
        return log_odds(after, predicted) - log_odds(before, predicted)
