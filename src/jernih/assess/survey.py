"""Surveys: accuracies alone, for many bounds or many purifiers or a costly attack.

A survey is what stands beside the full assessment: a fine sweep of bounds, the table that compares
purifiers, or an attack too slow to run on every image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from jernih.assess.metrics import balanced_accuracy
from jernih.assess.observations import Array, load_part, save_part
from jernih.assess.plan import AssessmentPlan
from jernih.assess.result import ClassScores, Interval, Rate
from jernih.assess.statistics import Bootstrap, rate
from jernih.assess.words import format_attack
from jernih.classifiers import Classifier
from jernih.defended import Defended
from jernih.purifiers import Purifier
from jernih.randomness import derive_seed, generator, seeded
from jernih.storage import fingerprint, read_json, to_json, write_json
from jernih.types import Threat
from jernih.validate import InputError, check_images, check_labels, check_logits
from jernih.world import in_shares

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


@dataclass(frozen=True)
class SurveyPlan:
    """What a survey is to do.

    Attributes:
        title: what it is about.
        assessment: attack, bounds, attackers, batch size, level and seed.
        limit: number of images to draw at random; None for all.
    """

    title: str
    assessment: AssessmentPlan
    limit: int | None = None

    def drawn(self, size: int) -> list[int]:
        """The positions of the images of a data set of ``size`` that the survey looks at."""
        return drawn(size, self.limit, self.assessment.seed)


def drawn(size: int, limit: int | None, seed: int) -> list[int]:
    """The positions of so many images of ``size``, in order; the same in every survey of a run."""
    if limit is None or limit >= size:
        return list(range(size))
    source = generator(seed, "survey", limit)
    return sorted(torch.randperm(size, generator=source)[:limit].tolist())


def survey(
    classifier: Classifier,
    purifiers: Mapping[str, Purifier],
    dataset: Dataset[Any],
    plan: SurveyPlan,
    *,
    parts: Path | None = None,
    key: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Measure the accuracy of several purifiers under several threat models.

    Against an oblivious attacker all purifiers see the same attacked images, as does the
    classifier alone; against an adaptive one each sees those made through itself.

    Args:
        classifier: the classifier, in evaluation mode.
        purifiers: the purifiers by name, in evaluation mode.
        dataset: gives (image, label, index).
        plan: what to do.
        parts: folder for finished batches, from which an interrupted survey goes on.
        key: fingerprint of models and data, needed with ``parts``.
        progress: called with images done and images in all.

    Raises:
        InputError: for no purifier, one called ``"none"``, an empty data set, or ``parts``
            without ``key``.
    """
    size = len(dataset)  # type: ignore[arg-type]
    if not purifiers or BARE in purifiers:
        raise InputError("purifiers", f"one or more, none called {BARE!r}", sorted(purifiers))
    if size == 0:
        raise InputError("dataset", "at least one image", "none")
    if parts is not None and not key:
        raise InputError("key", "a fingerprint of the models and the data", "none")
    positions = plan.drawn(size)
    frozen = {
        name: Defended(classifier, purifier).eval().frozen() for name, purifier in purifiers.items()
    }
    cells = _cells(plan.assessment, list(purifiers))
    names = ["label", *(_cell_name(cell) for cell in cells)]
    batch_size = plan.assessment.batch_size

    def work(start: int) -> dict[str, Array]:
        chosen = positions[start : start + batch_size]
        file = None if parts is None else parts / f"part-{start:06d}.npz"
        mark = fingerprint([key, plan.assessment.describe(), chosen, names])
        values = None if file is None else load_part(file, mark, names)
        if values is None:
            images, labels, _ = default_collate([dataset[i] for i in chosen])
            device = classifier.mean.device
            images = check_images(images.to(device), "dataset images")
            labels = check_labels(labels, len(images), len(classifier.classes)).to(device)
            with seeded(plan.assessment.seed, "survey", start):  # what random purifiers draw from
                values = _measure(frozen, images, labels, plan.assessment, start)
            if file is not None:
                save_part(file, mark, values)
        if progress is not None:
            progress(start + len(chosen), len(positions))
        return values

    starts = range(0, len(positions), batch_size)
    done = list(in_shares(starts, lambda: work, kept=parts is not None))
    joined = {name: np.concatenate([part[name] for part in done]) for name in names}
    labels_seen = joined["label"]
    common = int(np.bincount(labels_seen).argmax())
    attack = plan.assessment.attack
    few = len(classifier.classes) <= FEW
    resamples = (
        Bootstrap(len(positions), plan.assessment.seed, plan.assessment.level) if few else None
    )
    return Survey(
        title=plan.title,
        attack={k: v for k, v in attack.describe().items() if k not in ("eps", "targeted")},
        n=len(positions),
        of=size,
        level=plan.assessment.level,
        majority_class=classifier.classes[common],
        majority=rate(labels_seen == common, plan.assessment.level),
        purifiers={name: purifier.describe() for name, purifier in purifiers.items()},
        rows=tuple(
            _row(
                cell,
                labels_seen,
                joined[_cell_name(cell)],
                classifier.classes,
                plan.assessment,
                resamples,
            )
            for cell in cells
        ),
    )


Cell = tuple[str, Threat | None]
"""A purifier and a threat model."""


def _cells(plan: AssessmentPlan, purifiers: Sequence[str]) -> list[Cell]:
    everyone = [BARE, *purifiers]
    cells: list[Cell] = [(name, None) for name in everyone]
    for knowledge in plan.knowledge:
        for eps in plan.bounds:
            threat = Threat(plan.attack.norm, eps, knowledge)
            # Without a purifier there is nothing more to know.
            cells += [(n, threat) for n in (everyone if knowledge == "oblivious" else purifiers)]
    return cells


def _cell_name(cell: Cell) -> str:
    return f"{cell[0]} | {cell[1] or 'no attack'}".replace("/", "_")


def _measure(
    models: Mapping[str, Defended],
    images: Tensor,
    labels: Tensor,
    plan: AssessmentPlan,
    start: int,
) -> dict[str, Array]:
    """Predictions for one batch in every cell."""
    classifier = next(iter(models.values())).classifier
    values: dict[str, Array] = {"label": labels.cpu().numpy()}

    def note(name: str, threat: Threat | None, logits: Tensor) -> None:
        predicted = check_logits(logits, len(images)).argmax(1)
        values[_cell_name((name, threat))] = predicted.cpu().numpy()

    with torch.no_grad():
        note(BARE, None, classifier(images))
        for name, model in models.items():
            note(name, None, model(images))
    for knowledge in plan.knowledge:
        threats = [Threat(plan.attack.norm, eps, knowledge) for eps in plan.bounds]
        if knowledge == "adaptive":
            for name, model in models.items():
                source = generator(derive_seed(plan.seed, "survey", name), knowledge, start)
                known = plan.known(model, "survey", name, start)
                found = plan.attack.sweep(known, images, labels, plan.bounds, generator=source)
                for threat, result in zip(threats, found, strict=True):
                    with torch.no_grad():  # a mean over draws is not what the model answers
                        logits = result.logits if known is model else model(result.images)
                    note(name, threat, logits)
            continue
        source = generator(plan.seed, "survey", knowledge, start)
        found = plan.attack.sweep(classifier, images, labels, plan.bounds, generator=source)
        for threat, result in zip(threats, found, strict=True):
            note(BARE, threat, result.logits)
            with torch.no_grad():
                for name, model in models.items():
                    note(name, threat, model(result.images))
    return values


def _row(
    cell: Cell,
    labels: Array,
    predictions: Array,
    classes: Sequence[str],
    plan: AssessmentPlan,
    bootstrap: Bootstrap | None,
) -> SurveyRow:
    right = predictions == labels
    present = np.unique(labels)
    recalls = [float(right[labels == index].mean()) for index in present]
    common = int(np.bincount(predictions).argmax())
    scores = []
    if len(classes) <= FEW:
        for index, recall in zip(present, recalls, strict=True):
            hits, claimed = (
                int((right & (labels == index)).sum()),
                int((predictions == index).sum()),
            )
            support = int((labels == index).sum())
            precision = hits / claimed if claimed else 0.0
            f1 = 2 * hits / (claimed + support)
            scores.append(ClassScores(classes[index], precision, recall, f1, support))
    return SurveyRow(
        purifier=cell[0],
        threat=cell[1],
        n=len(labels),
        accuracy=rate(right, plan.level),
        balanced_accuracy=float(np.mean(recalls)),
        recall=tuple(scores),
        top_prediction=classes[common],
        top_share=rate(predictions == common, plan.level),
        balanced=balanced_accuracy(labels, predictions, bootstrap) if bootstrap else None,
    )
