"""Purifier, classifier and detector as one model."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from jernih.classifiers import Classifier
from jernih.classifiers.prepare import channels_last
from jernih.detectors import Detector
from jernih.purifiers import Purifier
from jernih.validate import InputError, check_images


@dataclass(frozen=True)
class Inspection:
    """What a defended model makes of a batch of N images.

    Attributes:
        logits: the classifier's logits on the restored images (N, K).
        restored: the restored images (N, 3, H, W) in [0, 1].
        scores: suspicion (N,), or None without a detector.
        flagged: bool (N,), or None without a calibrated detector.
    """

    logits: Tensor
    restored: Tensor
    scores: Tensor | None
    flagged: Tensor | None


class Defended(nn.Module):
    """A classifier behind an automatic purifier: images in [0, 1] → logits.

    The classifier is left as it is. Since the whole is a plain module, any attack that works on
    a classifier works through it (an adaptive attack).

    Args:
        classifier: the classifier to defend.
        purifier: what restores images before it.
        detector: what scores them, if wanted.
    """

    def __init__(
        self, classifier: Classifier, purifier: Purifier, detector: Detector | None = None
    ) -> None:
        super().__init__()
        if detector is not None and detector.purifier is not purifier:
            raise InputError("detector", "one made for this very purifier", "another purifier's")
        self.classifier = classifier
        self.purifier = purifier
        self.detector = detector

    def forward(self, images: Tensor) -> Tensor:
        """Classify the restored images; returns logits (N, K)."""
        logits: Tensor = self.classifier(self.purifier(images))
        return logits

    @torch.no_grad()
    def inspect(self, images: Tensor) -> Inspection:
        """Restore, score and classify images (N, 3, H, W) in [0, 1], without gradients.

        Raises:
            InputError: for images of another form.
        """
        images = check_images(images)
        restored = self.purifier(images)
        scores = flagged = None
        if self.detector is not None:
            scores = self.detector.score(images, restored)
            flagged = None if self.detector.threshold is None else self.detector.flag(scores)
        return Inspection(self.classifier(restored), restored, scores, flagged)

    def frozen(self) -> Self:
        """A copy with the classifier in its form for attacks and nothing that takes gradients."""
        classifier = self.classifier.frozen()
        purifier = copy.deepcopy(self.purifier).eval().requires_grad_(False)
        channels_last(purifier)
        detector = None
        if self.detector is not None:
            detector = type(self.detector)(
                **{**self.detector.options, "classifier": classifier, "purifier": purifier}
            )
            detector.calibration = self.detector.calibration
        return type(self)(classifier, purifier, detector).eval().requires_grad_(False)
