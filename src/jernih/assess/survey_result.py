"""What a survey found: accuracies of purifiers under threat models."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter

from jernih.assess.result import ClassScores, Interval, Rate
from jernih.assess.words import format_attack
from jernih.storage import read_json, to_json, write_json
from jernih.types import Threat

BARE = "none"
"""How the row of the classifier without a purifier is named."""
FEW = 12
"""Most classes of a label space whose recalls are told apart."""


@dataclass(frozen=True)
class SurveyRow:
    """The accuracy of one purifier under one threat model.

    Attributes:
        purifier: its name in the survey; ``"none"`` is the classifier alone.
        threat: what the attacker could do; None when nobody attacked.
        n: number of images.
        accuracy: share classified correctly.
        balanced_accuracy: mean recall over the classes present.
        recall: scores of each class present, in a label space of at most twelve.
        top_prediction: the class predicted most often.
        top_share: its share.
        balanced: the balanced accuracy with its interval, in a label space of at most twelve; None
            in surveys of older versions.
    """

    purifier: str
    threat: Threat | None
    n: int
    accuracy: Rate
    balanced_accuracy: float
    recall: tuple[ClassScores, ...]
    top_prediction: str
    top_share: Rate
    balanced: Interval | None = None


@dataclass(frozen=True)
class Survey:
    """What a survey found.

    Attributes:
        title: what it is about.
        attack: the attack as plain data.
        n: number of images.
        of: number of images of the split that they were drawn from.
        level: confidence level of the intervals.
        majority_class: the commonest class among the images.
        majority: its share: the accuracy of always answering it.
        purifiers: descriptions of the purifiers by name.
        rows: the results.
    """

    title: str
    attack: dict[str, Any]
    n: int
    of: int
    level: float
    majority_class: str
    majority: Rate
    purifiers: dict[str, dict[str, Any]]
    rows: tuple[SurveyRow, ...]

    @property
    def attack_name(self) -> str:
        """The attack's name with its number of steps, such as ``"pgd-40"``."""
        return format_attack(self.attack)

    @property
    def threats(self) -> tuple[Threat, ...]:
        """The threat models, in order."""
        return tuple(dict.fromkeys(row.threat for row in self.rows if row.threat))

    def row(self, purifier: str, threat: Threat | None) -> SurveyRow | None:
        """The row of a purifier under a threat model, if there is one."""
        found = (r for r in self.rows if r.purifier == purifier and r.threat == threat)
        return next(found, None)

    def save(self, path: Path) -> Path:
        """Write the survey as JSON."""
        return write_json(path, json.loads(to_json(asdict(self))))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a survey that :meth:`save` wrote."""
        return TypeAdapter(cls).validate_python(read_json(path))
