"""What a detection survey found, as plain frozen values that go to JSON and back unchanged."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter

from jernih.assess.result import FoundAt, Interval, Rate
from jernih.assess.words import format_attack, format_threat
from jernih.harmless import format_change
from jernih.storage import read_json, to_json, write_json
from jernih.types import Threat


@dataclass(frozen=True)
class SurveyedDetector:
    """A detector and how its threshold was set.

    Attributes:
        unit: its description.
        threshold: scores above it are flagged.
        nominal_fpr: the share of clean images that may be flagged.
        calibration_n: clean images that the threshold was set on, none of them measured here.
    """

    unit: dict[str, Any]
    threshold: float
    nominal_fpr: float
    calibration_n: int


@dataclass(frozen=True)
class Found:
    """How well one detector tells attacked images from the same images unchanged.

    Attributes:
        auroc: area under the ROC curve, unchanged against attacked.
        at: points of that curve, their thresholds set on the unchanged images measured here.
        flagged: share of the attacked images above the detector's own threshold.
    """

    auroc: Interval
    at: tuple[FoundAt, ...]
    flagged: Rate


@dataclass(frozen=True)
class AttackedRow:
    """What all detectors make of the same attacked images.

    Attributes:
        attack: the attack as plain data.
        threat: what the attacker could do.
        n: attacked images that the classifier was right on before: on the others most attacks find
            their work done and stop, and nobody can find what is not there. All clean images of
            the survey stand against them.
        accuracy: the classifier's on the attacked images: what it gets right needs no alarm.
        found: what was found, by detector.
    """

    attack: dict[str, Any]
    threat: Threat
    n: int
    accuracy: Rate
    found: dict[str, Found]

    @property
    def attack_name(self) -> str:
        """The attack's name with its number of steps, such as ``"pgd-40"``."""
        return format_attack(self.attack)

    @property
    def name(self) -> str:
        """The row in a few words."""
        return format_threat(self.threat, self.attack_name)


@dataclass(frozen=True)
class Alarms:
    """How often one detector flags images that nobody attacked.

    Attributes:
        flagged: the share above the detector's threshold.
        ratio: that share over the one that the threshold was set for.
    """

    flagged: Rate
    ratio: float


@dataclass(frozen=True)
class HarmlessRow:
    """What all detectors make of the same harmlessly changed images.

    Attributes:
        change: the change as plain data; None for images as they are.
        n: number of images.
        accuracy: the classifier's on them.
        alarms: false alarms by detector.
    """

    change: dict[str, Any] | None
    n: int
    accuracy: Rate
    alarms: dict[str, Alarms]

    @property
    def name(self) -> str:
        """The row in a few words."""
        return format_change(self.change)


@dataclass(frozen=True)
class DetectionSurvey:
    """What a detection survey found.

    Attributes:
        title: what it is about.
        n: number of images, each measured unchanged, attacked and harmlessly changed.
        of: number of images of the split that they were drawn from.
        level: confidence level of the intervals.
        detectors: the detectors by name.
        attacked: a row for each attack and bound.
        harmless: a row for the images as they are, then one for each change.
    """

    title: str
    n: int
    of: int
    level: float
    detectors: dict[str, SurveyedDetector]
    attacked: tuple[AttackedRow, ...]
    harmless: tuple[HarmlessRow, ...]

    def save(self, path: Path) -> Path:
        """Write the survey as JSON."""
        return write_json(path, json.loads(to_json(asdict(self))))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a survey that :meth:`save` wrote."""
        return TypeAdapter(cls).validate_python(read_json(path))
