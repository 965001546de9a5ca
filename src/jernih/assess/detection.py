"""Detection surveys: several detectors on the same attacked and harmlessly changed images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from jernih.assess.detection_result import (
    Alarms,
    AttackedRow,
    DetectionSurvey,
    Found,
    HarmlessRow,
    SurveyedDetector,
)
from jernih.assess.metrics import FPRS, least_flagged, ranking
from jernih.assess.observations import Array, load_part, save_part
from jernih.assess.plan import AssessmentPlan, drawn
from jernih.assess.result import FoundAt
from jernih.assess.statistics import Bootstrap, rate
from jernih.attacks import Attack
from jernih.classifiers import Classifier
from jernih.defended import Defended
from jernih.detectors import Detector
from jernih.harmless import Harmless
from jernih.randomness import generator, seeded
from jernih.storage import fingerprint
from jernih.types import Threat
from jernih.validate import (
    InputError,
    check_count,
    check_images,
    check_labels,
    check_logits,
    check_number,
)
from jernih.world import in_shares

PARTS_VERSION = 1

CLEAN = "clean"


@dataclass(frozen=True)
class DetectionPlan:
    """What a detection survey is to do.

    Attributes:
        title: what it is about.
        attacks: untargeted attacks on the classifier alone, each with its bounds.
        harmless: changes that detectors had better let pass.
        batch_size: images measured together.
        level: confidence level of every interval, in [0.5, 0.999].
        seed: seed of attacks, changes and the bootstrap.
        limit: number of images to draw at random; None for all.

    Raises:
        InputError: for a value outside these, and for what an attack or a change is not.
    """

    title: str
    attacks: Sequence[tuple[Attack, Sequence[float | str]]]
    harmless: Sequence[Harmless] = ()
    batch_size: int = 32
    level: float = 0.95
    seed: int = 0
    limit: int | None = None

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size)
        check_number("level", self.level, 0.5, 0.999)
        check_count("seed", self.seed, 0)
        if self.limit is not None:
            check_count("limit", self.limit)
        for change in self.harmless:
            if not isinstance(change, Harmless):
                raise InputError("harmless", "harmless changes", f"a {type(change).__name__}")
        _ = self.assessments  # checks attacks and bounds

    @property
    def assessments(self) -> tuple[AssessmentPlan, ...]:
        """A plan for each attack."""
        return tuple(
            AssessmentPlan(attack, epsilons, ("oblivious",), self.batch_size, self.level, self.seed)
            for attack, epsilons in self.attacks
        )

    def describe(self) -> dict[str, Any]:
        """What measured values depend on, as plain data; title and level are not among it."""
        return {
            "attacks": [
                [plan.attack.describe(), plan.attack.norm, plan.bounds] for plan in self.assessments
            ],
            "harmless": [change.describe() for change in self.harmless],
            "batch_size": self.batch_size,
            "seed": self.seed,
            "limit": self.limit,
        }


def survey_detection(
    detectors: Mapping[str, Detector],
    dataset: Dataset[Any],
    plan: DetectionPlan,
    *,
    parts: Path | None = None,
    key: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> DetectionSurvey:
    """Measure what several detectors find, and how often they raise a false alarm.

    Images are attacked, changed and restored once for all detectors, by an attacker who sees the
    classifier alone. Nothing is fitted or calibrated on them.

    Args:
        detectors: calibrated detectors by name, all of one classifier and purifier, in evaluation
            mode; they stay as they are.
        dataset: gives (image, label, index); images float32 (3, H, W) in [0, 1].
        plan: what to do.
        parts: folder for finished batches, from which an interrupted survey goes on.
        key: fingerprint of detectors and data, needed with ``parts``.
        progress: called with images done and images in all.

    Raises:
        InputError: for no detector, one without a threshold or with models of its own, scores
            that are not finite, an empty data set, or ``parts`` without ``key``.
    """
    told = _check(detectors)
    size = len(dataset)  # type: ignore[arg-type]
    if size == 0:
        raise InputError("dataset", "at least one image", "none")
    if parts is not None and not key:
        raise InputError("key", "a fingerprint of the detectors and the data", "none")
    positions = drawn(size, plan.limit, plan.seed)
    models = _frozen(list(detectors.values()))
    described = [PARTS_VERSION, key, plan.describe(), [one.unit for one in told.values()]]
    names = [_column(at, what) for at in _conditions(plan) for what in ("right", *range(len(told)))]
    device = models[0].classifier.mean.device

    def work(start: int) -> dict[str, Array]:
        chosen = positions[start : start + plan.batch_size]
        file = None if parts is None else parts / f"part-{start:06d}.npz"
        mark = fingerprint([described, chosen])
        values = None if file is None else load_part(file, mark, names)
        if values is None:
            images, labels, _ = default_collate([dataset[i] for i in chosen])
            images = check_images(images.to(device), "dataset images")
            labels = check_labels(labels, len(images), len(models[0].classifier.classes))
            with seeded(plan.seed, "detection", start):  # what random purifiers draw from
                values = _measure(models, images, labels.to(device), plan, start)
            if file is not None:
                save_part(file, mark, values)
        if progress is not None:
            progress(start + len(chosen), len(positions))
        return values

    starts = range(0, len(positions), plan.batch_size)
    done = list(in_shares(starts, lambda: work, kept=parts is not None))
    seen = {name: np.concatenate([part[name] for part in done]) for name in names}
    bootstrap = Bootstrap(len(positions), plan.seed, plan.level)
    return DetectionSurvey(
        title=plan.title,
        n=len(positions),
        of=size,
        level=plan.level,
        detectors=told,
        attacked=tuple(_attacked(seen, told, plan, bootstrap)),
        harmless=tuple(_harmless(seen, told, plan)),
    )


def _check(detectors: Mapping[str, Detector]) -> dict[str, SurveyedDetector]:
    """The detectors as plain data, if they can be compared."""
    if not detectors:
        raise InputError("detectors", "at least one", "none")
    first = next(iter(detectors.values()))
    told = {}
    for name, detector in detectors.items():
        if detector.classifier is not first.classifier or detector.purifier is not first.purifier:
            raise InputError("detectors", "one classifier and purifier", f"others in {name!r}")
        found = detector.calibration
        if found is None:
            raise InputError("detectors", "calibrated thresholds", f"none in {name!r}")
        told[name] = SurveyedDetector(detector.describe(), found.threshold, found.fpr, found.n)
    return told


def _frozen(detectors: Sequence[Detector]) -> list[Detector]:
    """Copies on one copy of the models, in their form for attacks."""
    models = Defended(detectors[0].classifier, detectors[0].purifier).frozen()
    made = [detector.made_for(models.classifier, models.purifier) for detector in detectors]
    return [detector.eval().requires_grad_(False) for detector in made]


def _conditions(plan: DetectionPlan) -> list[str]:
    """What is done with the images: nothing, each attack at each bound, each change."""
    bounds = [len(attack.bounds) for attack in plan.assessments]
    return [
        CLEAN,
        *(f"attack-{a}-{e}" for a, count in enumerate(bounds) for e in range(count)),
        *(f"harmless-{h}" for h in range(len(plan.harmless))),
    ]


def _column(condition: str, what: str | int) -> str:
    """Scores of a detector by its place, or ``"right"``: whether the classifier was."""
    return f"{condition} {what}"


def _measure(
    models: Sequence[Detector], images: Tensor, labels: Tensor, plan: DetectionPlan, start: int
) -> dict[str, Array]:
    """Scores of one batch under every condition."""
    classifier, purifier = models[0].classifier, models[0].purifier
    values: dict[str, Array] = {}
    for condition, shown in _shown(classifier, images, labels, plan, start):
        with torch.no_grad():
            right = check_logits(classifier(shown), len(shown)).argmax(1) == labels
            restored = purifier(shown)
            scores = [model.score(shown, restored) for model in models]
        values[_column(condition, "right")] = right.cpu().numpy()
        for place, (model, found) in enumerate(zip(models, scores, strict=True)):
            if found.shape != labels.shape or not bool(found.isfinite().all()):
                got = "NaN or infinity" if found.shape == labels.shape else tuple(found.shape)
                raise InputError(
                    f"detector {model.name!r}", f"finite scores of shape ({len(labels)},)", got
                )
            values[_column(condition, place)] = found.double().cpu().numpy()
    return values


def _shown(
    classifier: Classifier, images: Tensor, labels: Tensor, plan: DetectionPlan, start: int
) -> Iterator[tuple[str, Tensor]]:
    """What the detectors are shown of one batch, condition by condition."""
    conditions = iter(_conditions(plan))
    yield next(conditions), images
    for one in plan.assessments:
        # No place in the list goes into a seed: another attack beside it changes nothing.
        source = generator(plan.seed, "detection", start)
        made = one.attack.perturb(classifier, images, labels, one.bounds, generator=source)
        for attacked in made:
            yield next(conditions), attacked
    for change in plan.harmless:
        source = generator(plan.seed, "harmless", start)
        yield next(conditions), change(images, generator=source)


def _attacked(
    seen: Mapping[str, Array],
    detectors: Mapping[str, SurveyedDetector],
    plan: DetectionPlan,
    bootstrap: Bootstrap,
) -> Iterator[AttackedRow]:
    was_right = seen[_column(CLEAN, "right")]
    image = np.concatenate([np.arange(bootstrap.n), np.flatnonzero(was_right)])
    positive = np.arange(len(image)) >= bootstrap.n
    for a, one in enumerate(plan.assessments):
        for e, eps in enumerate(one.bounds if was_right.any() else ()):
            condition = f"attack-{a}-{e}"
            found = {}
            for place, (name, detector) in enumerate(detectors.items()):
                clean = seen[_column(CLEAN, place)]
                scores = seen[_column(condition, place)][was_right]
                auroc, _ = ranking(np.concatenate([clean, scores]), positive, image, bootstrap)
                at = tuple(
                    FoundAt(fpr, rate(scores > least_flagged(clean, fpr), plan.level))
                    for fpr in FPRS
                )
                found[name] = Found(auroc, at, rate(scores > detector.threshold, plan.level))
            yield AttackedRow(
                attack=one.describe()["attack"],
                threat=Threat(one.attack.norm, eps, "oblivious"),
                n=int(was_right.sum()),
                accuracy=rate(seen[_column(condition, "right")][was_right], plan.level),
                found=found,
            )


def _harmless(
    seen: Mapping[str, Array], detectors: Mapping[str, SurveyedDetector], plan: DetectionPlan
) -> Iterator[HarmlessRow]:
    changes = [
        (CLEAN, None),
        *((f"harmless-{h}", c.describe()) for h, c in enumerate(plan.harmless)),
    ]
    for condition, change in changes:
        alarms = {}
        for place, (name, detector) in enumerate(detectors.items()):
            flagged = rate(seen[_column(condition, place)] > detector.threshold, plan.level)
            alarms[name] = Alarms(flagged, flagged.value / detector.nominal_fpr)
        right = seen[_column(condition, "right")]
        yield HarmlessRow(change, len(right), rate(right, plan.level), alarms)
