"""What every detector shares: a score for each image and a threshold set on clean images."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from jernih.classifiers import Classifier
from jernih.purifiers import Purifier
from jernih.registry import Configured, Registry
from jernih.validate import InputError, check_number

Source = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Gives batches of images (N, 3, H, W) and labels (N,), from the first on whenever called."""


@dataclass(frozen=True)
class Calibration:
    """How a threshold came about.

    Attributes:
        threshold: scores above it are flagged.
        fpr: the share of clean images that may be flagged.
        n: number of clean images that the threshold was set on.
    """

    threshold: float
    fpr: float
    n: int


class Detector(Configured, nn.Module, ABC):
    """Scores how suspicious images are; higher means more suspicious.

    A subclass writes :meth:`score`; one that learns writes :meth:`fit` too, and keeps in buffers
    what it learns.

    Args:
        classifier: the defended classifier, images → logits.
        purifier: the purifier that runs before it.

    Attributes:
        calibration: set by :meth:`calibrate`; None until then.
        learns: whether :meth:`fit` has to be called before scores can be had.
        reference: the publication that describes the method.
    """

    learns: ClassVar[bool] = False
    reference: ClassVar[str] = ""

    def __init__(self, classifier: Classifier, purifier: Purifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.purifier = purifier
        self.calibration: Calibration | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Score images (N, 3, H, W) in [0, 1]; returns float scores (N,)."""
        return self.score(images, self.purifier(images))

    @abstractmethod
    def score(self, images: Tensor, restored: Tensor) -> Tensor:
        """Score images whose restoration is at hand, so that it is not computed twice."""

    def fit(self, clean: Source, attacked: Source) -> None:
        """Learn from clean images and attacked ones, none of which serve to calibrate or test."""
        raise NotImplementedError(f"{self.name!r} learns nothing")

    def learnt(self) -> dict[str, Tensor]:
        """What :meth:`fit` has learnt, by name; nothing of classifier and purifier."""
        return {
            f"{path}.{name}".lstrip("."): value
            for path, module in self.named_modules()
            if isinstance(module, Detector)
            for name, value in module.named_buffers(recurse=False)
        }

    def restore_learnt(self, learnt: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`learnt` gave for a detector made with the same options.

        Raises:
            InputError: for what another detector learnt.
        """
        known = self.learnt()
        if set(learnt) != set(known):
            raise InputError("learnt", f"{sorted(known)}", f"{sorted(learnt)}")
        for name, value in learnt.items():
            path, _, field = name.rpartition(".")
            setattr(self.get_submodule(path), field, value.to(known[name].device))

    def made_for(self, classifier: Classifier, purifier: Purifier) -> Self:
        """The same detector, with what it learnt and its threshold, for copies of its models."""
        options = {**self.options, "classifier": classifier, "purifier": purifier}
        made = type(self)(**options).to(classifier.mean.device)
        made.restore_learnt(self.learnt())
        made.calibration = self.calibration
        return made

    @property
    def threshold(self) -> float | None:
        """The score above which an image is flagged; None before calibration."""
        return None if self.calibration is None else self.calibration.threshold

    def calibrate(
        self, scores: Tensor, fpr: float = 0.05, harmless: Sequence[Tensor] = ()
    ) -> Calibration:
        """Set the threshold so that at most a share ``fpr`` of new clean images is flagged.

        Of n clean scores the ⌈(n + 1)(1 − fpr)⌉-th smallest is taken (split conformal prediction,
        Vovk et al. 2005; see arXiv:2107.07511), which holds the share in expectation for any
        distribution, as long as the images met later are like these.

        Args:
            scores: scores (n,) of clean images that served no other purpose.
            fpr: the wanted false-positive rate, in (0, 1).
            harmless: scores (n,) of the same images under each of some changes that are not to be
                flagged either: the highest threshold that any of them asks for is taken.

        Raises:
            InputError: for scores that are not finite, or too few for this rate.
        """
        check_number("fpr", fpr, 1e-6, 1 - 1e-6)
        thresholds = [_threshold(found, fpr) for found in (scores, *harmless)]
        self.calibration = Calibration(max(thresholds), fpr, len(scores))
        return self.calibration

    def flag(self, scores: Tensor) -> Tensor:
        """Which scores (N,) lie above the threshold, as bool (N,).

        Raises:
            InputError: before :meth:`calibrate`.
        """
        if self.calibration is None:
            raise InputError("detector", "a calibrated threshold", "none yet")
        return scores > self.calibration.threshold


class Comparison(Detector):
    """A detector that goes by the classifier's answers before and after restoration alone.

    Who has those answers at hand calls :meth:`compare`, and the classifier need not be asked again.
    """

    def score(self, images: Tensor, restored: Tensor) -> Tensor:
        """Score images (N, 3, H, W) by the answers for them and for what they were restored to."""
        return self.compare(self.classifier(images), self.classifier(restored))

    @abstractmethod
    def compare(self, before: Tensor, after: Tensor) -> Tensor:
        """Scores (N,) from the logits (N, K) of the images as they came and as restored."""


def _threshold(scores: Tensor, fpr: float) -> float:
    if scores.ndim != 1 or not bool(torch.isfinite(scores).all()):
        raise InputError("scores", "finite scores of shape (n,)", tuple(scores.shape))
    n = len(scores)
    rank = math.ceil((n + 1) * (1 - fpr) - 1e-9)
    if rank > n:
        least = math.ceil(1 / fpr - 1e-9) - 1
        raise InputError("scores", f"at least {least} clean images for fpr {fpr:g}", n)
    return float(scores.sort().values[rank - 1])


DETECTORS: Registry[Detector] = Registry("detector")
"""All detectors by name."""
