"""What an assessment found, as plain frozen values that go to JSON and back unchanged."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, SkipValidation, TypeAdapter, ValidationError

from jernih.assess.observations import Observations
from jernih.storage import read_json, to_json, write_json
from jernih.types import Threat
from jernih.validate import InputError

SCHEMA_VERSION = 1

Which = Literal["clean", "clean through purifier", "attacked", "restored"]
Severity = Literal["serious", "caution", "note"]


@dataclass(frozen=True)
class Rate:
    """A share of n independent cases with its interval."""

    value: float
    successes: int
    n: int
    low: float
    high: float
    level: float
    method: str


@dataclass(frozen=True)
class Interval:
    """An estimate over n images with a bootstrap interval (None where it cannot be had)."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    level: float
    method: str
    resamples: int
    seed: int


@dataclass(frozen=True)
class Spread:
    """How a quantity is spread over the images; infinite values are counted and left out."""

    mean: float | None
    std: float | None
    median: float | None
    min: float | None
    max: float | None
    n: int
    infinite: int


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class, or an average over classes, and the images behind them."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Cell:
    """One non-empty cell of a confusion matrix."""

    true: str
    predicted: str
    count: int


@dataclass(frozen=True)
class Curve:
    """A ROC curve: true- against false-positive rate."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]


@dataclass(frozen=True)
class Histogram:
    """Counts over bins of equal width from ``low`` to ``high``."""

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Quality:
    """Distance of images from their clean originals."""

    mse: Spread
    psnr: Spread
    ssim: Spread


@dataclass(frozen=True)
class Condition:
    """What the classifier makes of one kind of images.

    Attributes:
        which: clean images, clean ones after the purifier, attacked ones, or attacked ones after
            the purifier ("restored").
        threat: what the attacker could do; None when nobody attacked.
        attack: the attack's name, "none" when nobody attacked.
        n: number of images.
        accuracy: share classified correctly.
        accuracy_8bit: attacked images only: the same after rounding them to 8 bits a channel.
        balanced_accuracy: mean recall over the classes present.
        f1_macro: mean F1 score over the classes present.
        auroc: two-class label spaces only: area under the ROC curve of the second class.
        roc: that curve.
        success: under attack only: of the images classified correctly before the attack on the
            same path (bare for "attacked", through the purifier for "restored"), the share that
            is misclassified after it; None when there was no such image.
        per_class: scores of each class present among the labels.
        macro: their plain average.
        weighted: their average by support.
        confusion: the non-empty cells of the confusion matrix.
        confidence: softmax probability of the predicted class.
        top_prediction: the class predicted most often.
        top_share: its share of the predictions.
        quality: distance from the clean images; None for those themselves.
        linf: attacked images only: largest absolute change of a pixel, for each image.
        l2: attacked images only: Euclidean size of the change of each image.
        perturbation: attacked images only: the changes of all pixels.
    """

    which: Which
    threat: Threat | None
    attack: str
    n: int
    accuracy: Rate
    accuracy_8bit: Rate | None
    balanced_accuracy: Interval
    f1_macro: Interval
    auroc: Interval | None
    roc: Curve | None
    success: Rate | None
    per_class: tuple[ClassScores, ...]
    macro: ClassScores
    weighted: ClassScores
    confusion: tuple[Cell, ...]
    confidence: Spread
    top_prediction: str
    top_share: Rate
    quality: Quality | None
    linf: Spread | None
    l2: Spread | None
    perturbation: Histogram | None


@dataclass(frozen=True)
class PairedTest:
    """Two conditions compared on the same images.

    Attributes:
        first: one condition.
        second: the other.
        threat: the threat model of the attacked one.
        n: number of images.
        difference: accuracy of the second less that of the first.
        t: statistic of the paired t-test; None where it is not defined or infinite.
        t_p: its two-sided p-value; None with fewer than two images.
        first_only: images that are right in the first condition only.
        second_only: images that are right in the second condition only.
        mcnemar_p: two-sided p-value of the exact McNemar test on these two counts.
        remark: what to know when reading the row, often nothing.
    """

    first: Which
    second: Which
    threat: Threat | None
    n: int
    difference: Interval
    t: float | None
    t_p: float | None
    first_only: int
    second_only: int
    mcnemar_p: float
    remark: str


@dataclass(frozen=True)
class FoundAt:
    """The share of attacked images that is found where so few clean ones are flagged.

    Attributes:
        fpr: the share of these clean images that may be flagged at most.
        tpr: the share of the attacked ones flagged at that threshold.
    """

    fpr: float
    tpr: Rate


@dataclass(frozen=True)
class DetectionResult:
    """How well attacked images are told from clean ones under one threat model.

    Attributes:
        threat: the threat model.
        n: attacked images, less those that the attack left as they were, as many do with images
            that fool the model already. All clean ones stand against them.
        tpr: share of the attacked images that is flagged; None without a threshold.
        auroc: area under the ROC curve, clean against attacked.
        roc: that curve.
        at: points of that curve. Their thresholds are set on the clean images of this assessment,
            unlike the detector's own.
    """

    threat: Threat
    n: int
    tpr: Rate | None
    auroc: Interval
    roc: Curve
    at: tuple[FoundAt, ...] = ()


@dataclass(frozen=True)
class Detection:
    """What the detector did.

    Attributes:
        detector: its name.
        threshold: scores above it are flagged; None when the detector is not calibrated.
        nominal_fpr: the false-positive rate that the threshold was set for.
        calibration_n: clean images that it was set on.
        fpr: the false-positive rate met on the clean images of this assessment.
        results: one entry for each threat model under which the attack changed any image.
    """

    detector: str
    threshold: float | None
    nominal_fpr: float | None
    calibration_n: int | None
    fpr: Rate | None
    results: tuple[DetectionResult, ...]


@dataclass(frozen=True)
class Probe:
    """What a few clean images tell of a model that is attacked.

    Attributes:
        model: ``"classifier"`` or ``"defended model"``.
        n: number of images.
        random: images whose logits differ between two calls.
        averaged: the model takes the mean over draws.
        outside: images of which the classifier sees pixels outside [0, 1] or NaN.
        without_gradient: images on which the gradient of the cross-entropy is exactly zero; None
            when the attack does not follow gradients.
        saturated: images whose cross-entropy is rounded to zero; None likewise.
    """

    model: str
    n: int
    random: int
    averaged: bool
    outside: int
    without_gradient: int | None
    saturated: int | None


@dataclass(frozen=True)
class Finding:
    """Something that a reader must know before believing the numbers.

    Attributes:
        check: name of the check that found it.
        severity: ``"serious"`` (a conclusion may be wrong), ``"caution"`` or ``"note"``.
        text: what was found, in plain sentences.
    """

    check: str
    severity: Severity
    text: str


@dataclass(frozen=True)
class Assessment:
    """Everything that an assessment found.

    Attributes:
        schema_version: version of this layout.
        n: number of images.
        classes: the label space.
        counts: images of each class present.
        majority: the class with most images, named by ``majority_class``, as a constant answer.
        plan: the plan as plain data.
        models: descriptions of classifier, purifier and detector.
        environment: versions and device.
        meta: whatever the caller wants to keep, such as the time of the run.
        softmax_suspected: the classifier's outputs are non-negative and sum to 1 everywhere.
        conditions: clean, clean through purifier, then attacked and restored for each threat.
        tests: paired comparisons.
        detection: None without a detector.
        warnings: what a reader must know.
        probes: what a few images told of each model before it was attacked.
        observations: the values behind it, image by image; not part of the JSON.
    """

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)

    n: int
    classes: tuple[str, ...]
    counts: dict[str, int]
    majority_class: str
    majority: Rate
    plan: dict[str, Any]
    models: dict[str, Any]
    environment: dict[str, Any]
    meta: dict[str, Any]
    softmax_suspected: bool
    conditions: tuple[Condition, ...]
    tests: tuple[PairedTest, ...]
    detection: Detection | None
    warnings: tuple[Finding, ...] = ()
    probes: tuple[Probe, ...] = ()
    schema_version: int = SCHEMA_VERSION
    observations: Annotated[Observations | None, SkipValidation] = field(
        default=None, compare=False, repr=False
    )

    @property
    def attack(self) -> str:
        """The attack's name."""
        return str(self.plan["attack"]["name"])

    @property
    def threats(self) -> tuple[Threat, ...]:
        """The threat models, by the attacker's knowledge and then by bound."""
        return tuple(c.threat for c in self.conditions if c.threat and c.which == "attacked")

    def condition(self, which: Which, threat: Threat | None = None) -> Condition:
        """The condition of this kind under this threat model (None for no attack).

        Raises:
            InputError: when there is none.
        """
        for condition in self.conditions:
            if condition.which == which and condition.threat == threat:
                return condition
        raise InputError("condition", "one of the assessment's", f"{which}, {threat}")

    def to_dict(self) -> dict[str, Any]:
        """The assessment as plain data."""
        names = [f.name for f in dataclasses.fields(self) if f.name != "observations"]
        bare = dataclasses.replace(self, observations=None)
        values = dataclasses.asdict(bare)
        plain: dict[str, Any] = json.loads(to_json({name: values[name] for name in names}))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The assessment that :meth:`to_dict` described.

        Raises:
            InputError: for another schema version or another layout.
        """
        version = values.get("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError("assessment", f"schema_version {SCHEMA_VERSION}", repr(version))
        try:
            return TypeAdapter(cls).validate_python(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            fault = InputError(f"assessment {where}", "the layout of an Assessment", first["msg"])
            raise fault from None

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the assessment as JSON."""
        return write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an assessment.

        Raises:
            InputError: when the file is absent, damaged or of another layout.
        """
        values = read_json(path)
        if not isinstance(values, dict):
            raise InputError(f"assessment {path}", "a JSON object", type(values).__name__)
        return cls.from_dict(values)
