"""Detection by how far the classifier's answer moves when an image is squeezed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from jernih.classifiers import Classifier
from jernih.detectors.base import DETECTORS, Detector
from jernih.purifiers import PURIFIERS, Purifier
from jernih.validate import InputError

Squeezer = str | Mapping[str, Any]


@DETECTORS.register("feature-squeezing")
class FeatureSqueezing(Detector):
    r"""Feature squeezing: the largest change of the probabilities (Xu et al., arXiv:1704.01155).

    .. math:: s(x) = \max_j \| p(x) - p(q_j(x)) \|_1

    with p the classifier's probabilities and q the squeezers: purifiers that learn nothing. From 0
    to 2. The defaults are the publication's for ImageNet, 5 bits and a median of 2 × 2 pixels (of
    3 × 3 here, where squares are odd), without its third, non-local means.

    Args:
        classifier: the defended classifier.
        purifier: what restores the images (not used by this score).
        squeezers: the squeezers: each the name of a purifier, or a mapping of ``name`` and its
            options.

    Raises:
        InputError: for no squeezers, an unknown one, and one that has to learn.
    """

    reference: ClassVar[str] = "arXiv:1704.01155"

    def __init__(
        self,
        classifier: Classifier,
        purifier: Purifier,
        squeezers: Sequence[Squeezer] = ({"name": "bit-depth", "bits": 5}, "median"),
    ) -> None:
        super().__init__(classifier, purifier)
        if not squeezers or isinstance(squeezers, str):
            raise InputError("squeezers", "a list of at least one", repr(squeezers))
        self.squeezers = torch.nn.ModuleList(_make(squeezer) for squeezer in squeezers)

    def score(self, images: Tensor, restored: Tensor) -> Tensor:
        """Return the largest L1 distance of the probabilities for each image (N,)."""
        plain = self.classifier(images).softmax(1)
        changes = [
            (self.classifier(squeeze(images)).softmax(1) - plain).abs().sum(1)
            for squeeze in self.squeezers
        ]
        return torch.stack(changes).amax(0)


def _make(squeezer: Squeezer) -> Purifier:
    options = {"name": squeezer} if isinstance(squeezer, str) else dict(squeezer)
    if "name" not in options:
        raise InputError("squeezers", "a name, or a mapping with a name", repr(squeezer))
    name = str(options.pop("name"))
    if PURIFIERS.get(name).learns != "nothing":
        raise InputError("squeezers", "purifiers that learn nothing", repr(name))
    return PURIFIERS.create(name, **options)
