"""Surveys: accuracies alone, for many bounds or many purifiers or a costly attack.

A survey is what stands beside the full assessment: a fine sweep of bounds, the table that compares
purifiers, or an attack too slow to run on every image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from jernih.assess.metrics import balanced_accuracy
from jernih.assess.observations import Array, load_part, save_part
from jernih.assess.plan import AssessmentPlan, SurveyPlan
from jernih.assess.result import ClassScores
from jernih.assess.statistics import Bootstrap, rate
from jernih.assess.survey_result import BARE, FEW, Survey, SurveyRow
from jernih.classifiers import Classifier
from jernih.defended import Defended
from jernih.purifiers import Purifier
from jernih.randomness import derive_seed, generator, seeded
from jernih.storage import fingerprint
from jernih.types import Threat
from jernih.validate import InputError, check_images, check_labels, check_logits
from jernih.world import in_shares


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
    names = ["label", *name_cells(plan.assessment, list(purifiers))]
    batch_size = plan.assessment.batch_size

    def work(start: int) -> dict[str, Array]:
        chosen = positions[start : start + batch_size]
        file = None if parts is None else parts / f"part-{start:06d}.npz"
        mark = fingerprint([key, plan.describe(), chosen, names])
        values = None if file is None else load_part(file, mark, names)
        if values is None:
            images, labels, _ = default_collate([dataset[i] for i in chosen])
            device = classifier.mean.device
            images = check_images(images.to(device), "dataset images")
            labels = check_labels(labels, len(images), len(classifier.classes)).to(device)
            with seeded(plan.assessment.seed, "survey", start):  # what random purifiers draw from
                values = measure_survey(frozen, images, labels, plan, start)
            if file is not None:
                save_part(file, mark, values)
        if progress is not None:
            progress(start + len(chosen), len(positions))
        return values

    starts = range(0, len(positions), batch_size)
    done = list(in_shares(starts, lambda: work, kept=parts is not None))
    joined = {name: np.concatenate([part[name] for part in done]) for name in names}
    return sum_up(joined, classifier, purifiers, plan, size)


def sum_up(
    joined: Mapping[str, Array],
    classifier: Classifier,
    purifiers: Mapping[str, Purifier],
    plan: SurveyPlan,
    size: int,
) -> Survey:
    """What predictions add up to.

    Args:
        joined: the label of each image (n,) under ``"label"``, and the predictions for it under
            the names of :func:`name_cells`.
        classifier: the classifier that predicted.
        purifiers: the purifiers by name.
        plan: what was asked for.
        size: the number of images that these were drawn from.
    """
    cells = _cells(plan.assessment, list(purifiers))
    labels_seen = joined["label"]
    common = int(np.bincount(labels_seen).argmax())
    attack = plan.assessment.attack
    few = len(classifier.classes) <= FEW
    resamples = (
        Bootstrap(len(labels_seen), plan.assessment.seed, plan.assessment.level) if few else None
    )
    return Survey(
        title=plan.title,
        attack={
            **{k: v for k, v in attack.describe().items() if k not in ("eps", "targeted")},
            **plan.leads_from,
        },
        n=len(labels_seen),
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


def name_cells(plan: AssessmentPlan, purifiers: Sequence[str]) -> list[str]:
    """Names of what is predicted for each image: by every purifier, under every threat model."""
    return [_cell_name(cell) for cell in _cells(plan, purifiers)]


def _cell_name(cell: Cell) -> str:
    return f"{cell[0]} | {cell[1] or 'no attack'}".replace("/", "_")


def measure_survey(
    models: Mapping[str, Defended],
    images: Tensor,
    labels: Tensor,
    survey_plan: SurveyPlan,
    start: int,
) -> dict[str, Array]:
    """Predictions for one batch in every cell."""
    plan = survey_plan.assessment
    classifier = next(iter(models.values())).classifier
    values: dict[str, Array] = {"label": labels.cpu().numpy()}

    def note(name: str, threat: Threat | None, logits: Tensor) -> Tensor:
        predicted = check_logits(logits, len(images)).argmax(1)
        values[_cell_name((name, threat))] = predicted.cpu().numpy()
        return predicted

    with torch.no_grad():
        origins = {BARE: note(BARE, None, classifier(images))}
        origins |= {name: note(name, None, model(images)) for name, model in models.items()}
    if survey_plan.labels == "true":
        origins = dict.fromkeys(origins, labels)
    for knowledge in plan.knowledge:
        threats = [Threat(plan.attack.norm, eps, knowledge) for eps in plan.bounds]
        if knowledge == "adaptive":
            for name, model in models.items():
                source = generator(derive_seed(plan.seed, "survey", name), knowledge, start)
                known = plan.known(model, "survey", name, start)
                found = plan.attack.sweep(
                    known, images, origins[name], plan.bounds, generator=source
                )
                for threat, result in zip(threats, found, strict=True):
                    with torch.no_grad():  # a mean over draws is not what the model answers
                        logits = result.logits if known is model else model(result.images)
                    note(name, threat, logits)
            continue
        source = generator(plan.seed, "survey", knowledge, start)
        found = plan.attack.sweep(classifier, images, origins[BARE], plan.bounds, generator=source)
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
