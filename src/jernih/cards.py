"""Trained weights for others: a float16 file, and a card that says where they come from."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any, Literal

import torch

from jernih import __version__
from jernih.assess import Assessment
from jernih.assess.detection_result import DetectionSurvey
from jernih.assess.result import Interval, Rate
from jernih.assess.survey_result import BARE, FEW, Survey
from jernih.assess.words import format_threat
from jernih.classifiers import restore_classifier
from jernih.data.manifest import Manifest
from jernih.purifiers import restore_purifier
from jernih.storage import parse_yaml, read_json, sha256_file, write_json
from jernih.validate import InputError, check_choice
from jernih.weights import read_card, write_weights

Part = Literal["classifier", "purifier"]


def publish(
    run: str | os.PathLike[str],
    part: Part,
    name: str,
    *,
    folder: str | os.PathLike[str] = "weights",
    command: str = "",
    assessed: str | os.PathLike[str] | None = None,
    notes: str = "",
) -> Path:
    """Write a run's trained weights in float16, with a JSON card beside them.

    The card has what the training saw (data, split, seed, settings), how to do it again, the
    history, the figures with threat model, n and interval, and the SHA-256 of the weights.

    Args:
        run: folder of the run that trained the part.
        part: which weights.
        name: name of the files, without suffix.
        folder: where to put them.
        command: the command that trained them; by default ``jernih run`` with the run's config.
        assessed: folder of a run whose assessment gives the figures; by default ``run``, if it
            was assessed.
        notes: what else a user should know.

    Returns:
        the path of the card.

    Raises:
        InputError: when the run has no such weights.
    """
    check_choice("part", part, ["classifier", "purifier"])
    source = Path(run) / "model" / part / f"{part}.safetensors"
    if not source.is_file():
        raise InputError("run", f"a folder with a trained {part}", run)
    module = (
        restore_classifier(source, trust_code=True)
        if part == "classifier"
        else restore_purifier(source)
    )
    file = Path(folder) / f"{name}.safetensors"
    write_weights(file, module, read_card(source), torch.float16)
    config_file = Path(run) / "config.yaml"
    config = parse_yaml(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
    manifest = Manifest.load(Path(run) / "sample")
    card = {
        "name": name,
        "what": part,
        "file": file.name,
        "sha256": sha256_file(file),
        "dtype": "float16",
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "unit": read_card(source),
        "data": {"source": manifest.source, "images": _counts(manifest)},
        "seed": manifest.seed,
        "config": config,
        "command": command or f"jernih run {config_file}",
        "history": _history(source.parent / "history.csv"),
        "figures": _figures(Path(run if assessed is None else assessed) / "assess"),
        "detection": _detection(Path(run if assessed is None else assessed) / "assess" / "surveys"),
        "notes": notes,
        "jernih": __version__,
        "torch": str(torch.__version__),
    }
    return write_json(file.with_suffix(".json"), card)


def read_history(weights: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The training history in the card beside published weights; empty where there is none."""
    card = Path(weights).expanduser().with_suffix(".json")
    found = read_json(card) if card.is_file() else {}
    history = found.get("history", []) if isinstance(found, dict) else []
    return history if isinstance(history, list) else []


def history_text(history: list[dict[str, Any]]) -> str:
    """A history as CSV, as a training writes it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(history[0]))
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def read_figures(run: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Accuracies of a run and its surveys, each with threat model, n and interval; or none."""
    return _figures(Path(run) / "assess")


def _counts(manifest: Manifest) -> dict[str, Any]:
    """Images of each split: by class where there are few, in all where there are many."""
    return {
        split: counts if len(manifest.classes) <= FEW else sum(counts.values())
        for split, counts in manifest.counts().items()
    }


def _history(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    with file.open(encoding="utf-8") as stream:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(stream)]


def _figures(folder: Path) -> list[dict[str, Any]]:
    """Accuracies of an assessment and its surveys, each with its threat model, n and interval.

    A survey's figure stays away where the assessment has one of the same images and threat model.
    """
    file = folder / "assessment.json"
    if not file.is_file():
        return []
    assessment = Assessment.load(file)
    figures = []
    for condition in assessment.conditions:
        figure = {
            "images": condition.which,
            "threat": format_threat(condition.threat, assessment.attack),
            **_rate(condition.accuracy),
            **_balanced(
                condition.balanced_accuracy.value,
                condition.balanced_accuracy if len(assessment.classes) <= FEW else None,
            ),
        }
        if condition.accuracy_8bit is not None:
            figure["accuracy_8bit"] = condition.accuracy_8bit.value
        if condition.quality is not None and condition.quality.psnr.mean is not None:
            figure["psnr"] = condition.quality.psnr.mean
        figures.append(figure)
    told = {(figure["images"], figure["threat"]) for figure in figures}
    for number in sorted((folder / "surveys").glob("survey-*.json")):
        survey = Survey.load(number)
        for row in survey.rows:
            images = {BARE: "attacked", "main": "restored"}.get(row.purifier)
            threat = format_threat(row.threat, survey.attack_name)
            if images and row.threat and (images, threat) not in told:
                told.add((images, threat))
                figures.append(
                    {
                        "images": images,
                        "threat": threat,
                        **_rate(row.accuracy),
                        **_balanced(row.balanced_accuracy, row.balanced),
                    }
                )
    return figures


def _detection(folder: Path) -> list[dict[str, Any]]:
    """What each detector found of attacked images, and flagged of harmless ones."""
    rows: list[dict[str, Any]] = []
    for file in sorted(folder.glob("detection-*.json")):
        survey = DetectionSurvey.load(file)
        for row in survey.attacked:
            for name, found in row.found.items():
                rows.append(
                    {
                        "detector": name,
                        "images": "attacked",
                        "threat": row.name,
                        "n": row.n,
                        "level": survey.level,
                        **_ends("auroc", found.auroc),
                        **_ends("flagged", found.flagged),
                        "nominal_fpr": survey.detectors[name].nominal_fpr,
                    }
                )
        for harmless in survey.harmless:
            for name, alarms in harmless.alarms.items():
                rows.append(
                    {
                        "detector": name,
                        "images": harmless.name,
                        "threat": "no attack",
                        "n": harmless.n,
                        "level": survey.level,
                        **_ends("flagged", alarms.flagged),
                        "nominal_fpr": survey.detectors[name].nominal_fpr,
                    }
                )
    return rows


def _balanced(value: float | None, found: Interval | None) -> dict[str, Any]:
    """Balanced accuracy, with its interval where there are few classes."""
    name = "balanced_accuracy"
    return (
        {name: value}
        if found is None
        else {name: value, "balanced_low": found.low, "balanced_high": found.high}
    )


def _ends(name: str, found: Rate | Interval) -> dict[str, Any]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _rate(rate: Rate) -> dict[str, Any]:
    return {
        "n": rate.n,
        "accuracy": rate.value,
        "low": rate.low,
        "high": rate.high,
        "level": rate.level,
    }
