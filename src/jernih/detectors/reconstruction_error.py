"""Detection by reconstruction error."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from jernih.attacks import distance
from jernih.classifiers import Classifier
from jernih.detectors.base import DETECTORS, Detector
from jernih.purifiers import Purifier
from jernih.types import Norm
from jernih.validate import check_choice


@DETECTORS.register("reconstruction-error")
class ReconstructionError(Detector):
    r"""Distance between an image and its reconstruction (MagNet's detector, arXiv:1705.09064).

    .. math:: s(x) = \| x - \mathrm{AE}(x) \|

    An autoencoder trained on clean images is expected to reproduce those better than attacked
    ones. It says little when perturbations are small beside what the autoencoder blurs anyway.

    Args:
        classifier: the defended classifier (not used by this score).
        purifier: the autoencoder.
        norm: ``"l2"`` or ``"l1"``.
    """

    reference: ClassVar[str] = "arXiv:1705.09064"

    def __init__(self, classifier: Classifier, purifier: Purifier, norm: Norm = "l2") -> None:
        super().__init__(classifier, purifier)
        check_choice("norm", norm, ["l1", "l2"])
        self.norm: Norm = norm

    def score(self, images: Tensor, restored: Tensor) -> Tensor:
        """Return ‖x − AE(x)‖ for each image."""
        return distance(images, restored, self.norm)
