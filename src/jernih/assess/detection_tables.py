"""Detection surveys as tables: rows for people, one frame for programs."""

from __future__ import annotations

from typing import Any

import pandas as pd

from jernih.assess.detection_result import DetectionSurvey
from jernih.assess.metrics import FPRS
from jernih.assess.tables import Row, rate_columns, threat_columns
from jernih.assess.words import format_interval, format_rate, format_unit, percent

Cell = tuple[str, ...]
"""The lines of one cell, the most important first."""

Rows = tuple[tuple[str, ...], list[tuple[Cell, ...]]]
"""Headings and rows."""


def attacked_rows(survey: DetectionSurvey) -> Rows:
    """A row for each attack and bound, a column for each detector.

    A detector's cell holds its AUROC, what it finds at :data:`FPRS` of false alarms among the
    unchanged images, and what it flags at its own threshold.
    """
    headings = ("Threat model", "Classifier right", *survey.detectors)
    rows: list[tuple[Cell, ...]] = []
    for row in survey.attacked:
        cells = [
            (
                format_interval(found.auroc, as_percent=False),
                *(f"at {at.fpr:.0%}: {format_rate(at.tpr)}" for at in found.at),
                f"flagged: {format_rate(found.flagged)}",
            )
            for found in row.found.values()
        ]
        rows.append(((row.name,), (format_rate(row.accuracy),), *cells))
    return headings, rows


def harmless_rows(survey: DetectionSurvey) -> Rows:
    """A row for the images as they are and for each change, a column for each detector.

    A detector's cell holds the share that it flags, and that share over the nominal one.
    """
    headings = ("Images", "Classifier right", *survey.detectors)
    rows: list[tuple[Cell, ...]] = []
    for row in survey.harmless:
        cells = [
            (format_rate(alarms.flagged), f"{alarms.ratio:.1f} × nominal")
            for alarms in row.alarms.values()
        ]
        rows.append(((row.name,), (format_rate(row.accuracy),), *cells))
    return headings, rows


def thresholds_told(survey: DetectionSurvey) -> list[str]:
    """What each detector is and how its threshold was set, a sentence each."""
    told = []
    for name, detector in survey.detectors.items():
        told.append(
            f"{name} ({format_unit(detector.unit)}): threshold {detector.threshold:.4g}, set for "
            f"{percent(detector.nominal_fpr)} of false alarms on {detector.calibration_n} clean "
            f"images that are not measured here."
        )
    return told


def detection_frame(survey: DetectionSurvey) -> pd.DataFrame:
    """A row for each detector on each kind of images, harmless and attacked."""
    rows: list[Row] = []
    for harmless in survey.harmless:
        for name, alarms in harmless.alarms.items():
            rows.append(
                {
                    "images": harmless.name,
                    **threat_columns(None, ""),
                    **_detector(survey, name),
                    "n": harmless.n,
                    **rate_columns("accuracy", harmless.accuracy),
                    **rate_columns("flagged", alarms.flagged),
                    "ratio_to_nominal": alarms.ratio,
                }
            )
    for attacked in survey.attacked:
        for name, found in attacked.found.items():
            points = [rate_columns(f"tpr_at_{at.fpr:g}", at.tpr) for at in found.at]
            rows.append(
                {
                    "images": "attacked",
                    **threat_columns(attacked.threat, attacked.attack_name),
                    **_detector(survey, name),
                    "n": attacked.n,
                    **rate_columns("accuracy", attacked.accuracy),
                    **rate_columns("flagged", found.flagged),
                    **rate_columns("auroc", found.auroc),
                    **{column: value for point in points for column, value in point.items()},
                }
            )
    columns = [
        "images", "attack", "knowledge", "norm", "eps", "detector", "threshold", "nominal_fpr", "n",
        *_ends("accuracy"), *_ends("flagged"), "ratio_to_nominal", *_ends("auroc"),
        *(column for fpr in FPRS for column in _ends(f"tpr_at_{fpr:g}")),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _ends(name: str) -> tuple[str, str, str]:
    return name, f"{name}_low", f"{name}_high"


def _detector(survey: DetectionSurvey, name: str) -> dict[str, Any]:
    detector = survey.detectors[name]
    return {
        "detector": name,
        "threshold": detector.threshold,
        "nominal_fpr": detector.nominal_fpr,
    }
