"""Detection by reconstruction error."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

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
        # Row by row first: runtimes that add one number after another lose digits on large images.
        order = {"l1": 1.0, "l2": 2.0}[self.norm]
        rows = torch.linalg.vector_norm(images - restored, ord=order, dim=3)
        size: Tensor = torch.linalg.vector_norm(rows.flatten(1), ord=order, dim=1)
        return size
