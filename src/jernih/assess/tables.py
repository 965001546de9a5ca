"""The assessment as tables: rows for people, CSV files for programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from jernih.assess.metrics import FPRS
from jernih.assess.observations import Observations
from jernih.assess.result import Assessment, Condition, DetectionResult, Interval, Rate
from jernih.assess.survey_result import BARE, Survey, SurveyRow
from jernih.assess.words import DASH, format_interval, format_rate, format_threat, percent
from jernih.storage import write_text
from jernih.types import Threat
from jernih.validate import InputError

SUMMARY_COLUMNS = (
    "Threat model",
    "n",
    "Clean",
    "Attacked",
    "Restored",
    "Attack success, bare",
    "Attack success, defended",
    "PSNR attacked",
    "PSNR restored",
    "Flagged",
)
"""Headings of :func:`summary_rows`. Accuracies come with their interval."""

Row = dict[str, Any]


def summary_rows(assessment: Assessment) -> list[dict[str, str]]:
    """One row without an attack, then one for each threat model, as text.

    In the row without an attack "Restored" is the accuracy on clean images that went through
    the purifier, and "Flagged" the detector's false-positive rate.
    """
    clean = assessment.condition("clean")
    purified = assessment.condition("clean through purifier")
    detection = assessment.detection
    first = (
        "no attack", str(clean.n), format_rate(clean.accuracy), DASH,
        format_rate(purified.accuracy), DASH, DASH, DASH, _psnr(purified),
        format_rate(detection.fpr if detection else None),
    )  # fmt: skip
    rows = [first]
    for threat in assessment.threats:
        attacked = assessment.condition("attacked", threat)
        restored = assessment.condition("restored", threat)
        found = detection_for(assessment, threat)
        rows.append((
            format_threat(threat, assessment.attack), str(attacked.n), format_rate(clean.accuracy),
            format_rate(attacked.accuracy), format_rate(restored.accuracy),
            format_rate(attacked.success), format_rate(restored.success),
            _psnr(attacked), _psnr(restored), format_rate(found.tpr if found else None),
        ))  # fmt: skip
    return [dict(zip(SUMMARY_COLUMNS, row, strict=True)) for row in rows]


def survey_rows(survey: Survey) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A survey as headings and rows of text.

    With many purifiers a row is a purifier and a column a threat model; with one, a row is a
    threat model, and balanced accuracy and recalls stand beside the accuracies.
    """
    names = list(dict.fromkeys(row.purifier for row in survey.rows))
    told = {name: "the classifier alone" if name == BARE else name for name in names}
    threats = [None, *survey.threats]
    if len(names) > 2:
        headings = ("Purifier", *(format_threat(t, survey.attack_name) for t in threats))
        table = [
            (told[name], *(format_rate(r.accuracy if r else None) for r in found))
            for name in names
            for found in [[survey.row(name, threat) for threat in threats]]
        ]
        return headings, table
    headings = ("Threat model",)
    told = {name: "Classifier" if name == BARE else "Defended" for name in names}
    classes = bool(survey.rows[0].recall)
    extra = (": balanced accuracy", ": recalls") if classes else ()
    for name in names:
        headings += (f"{told[name]}: accuracy", *(f"{told[name]}{what}" for what in extra))
    table = []
    for threat in threats:
        cells: tuple[str, ...] = (format_threat(threat, survey.attack_name),)
        for name in names:
            row = survey.row(name, threat)
            cells += (format_rate(row.accuracy if row else None),)
            if classes:
                recalls = (
                    ", ".join(f"{s.name} {percent(s.recall)}" for s in row.recall) if row else DASH
                )
                cells += (_balanced(row) if row else DASH, recalls)
        table.append(cells)
    return headings, table


def _balanced(row: SurveyRow) -> str:
    return percent(row.balanced_accuracy) if row.balanced is None else format_interval(row.balanced)


def survey_frame(survey: Survey) -> pd.DataFrame:
    """A survey as a table for programs: a row for each purifier and threat model."""
    return pd.DataFrame(
        {
            "purifier": row.purifier,
            **threat_columns(row.threat, survey.attack_name),
            "n": row.n,
            **rate_columns("accuracy", row.accuracy),
            **rate_columns("balanced_accuracy", row.balanced),
            "balanced_accuracy": row.balanced_accuracy,
            **{f"recall_{scores.name}": scores.recall for scores in row.recall},
            "top_prediction": row.top_prediction,
            "top_share": row.top_share.value,
        }
        for row in survey.rows
    )


def detection_for(assessment: Assessment, threat: Threat) -> DetectionResult | None:
    """What the detector did under one threat model; None without a detector."""
    results = assessment.detection.results if assessment.detection else ()
    return next((result for result in results if result.threat == threat), None)


def _psnr(condition: Condition) -> str:
    if condition.quality is None or condition.quality.psnr.mean is None:
        return DASH
    return f"{condition.quality.psnr.mean:.1f} dB"


def write_tables(assessment: Assessment, folder: Path) -> dict[str, Path]:
    """Write the CSV files and return their paths by name.

    Raises:
        InputError: when the assessment comes from JSON and has no observations.
    """
    if assessment.observations is None:
        raise InputError("assessment", "one with its observations", "one read from JSON")
    tables = {
        "summary": pd.DataFrame(list(_summary(assessment))),
        "per_class": pd.DataFrame(list(_per_class(assessment))),
        "confusion": pd.DataFrame(list(_confusion(assessment))),
        "tests": pd.DataFrame(list(_tests(assessment))),
        "detection": _detection(assessment),
        "per_image": _per_image(assessment, assessment.observations),
    }
    return {
        name: write_text(folder / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
        for name, table in tables.items()
    }


def threat_columns(threat: Threat | None, attack: str) -> Row:
    """The columns that tell a threat model from others."""
    if threat is None:
        return {"attack": "none", "knowledge": "", "norm": "", "eps": 0.0}
    return {
        "attack": attack,
        "knowledge": threat.knowledge,
        "norm": threat.norm,
        "eps": threat.eps,
    }


def rate_columns(name: str, found: Rate | Interval | None) -> Row:
    """A figure and the two ends of its interval."""
    parts = (None, None, None) if found is None else (found.value, found.low, found.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), parts, strict=True))


def _summary(assessment: Assessment) -> Iterator[Row]:
    for c in assessment.conditions:
        found = detection_for(assessment, c.threat) if c.threat and c.which == "attacked" else None
        fpr = assessment.detection.fpr if assessment.detection and c.which == "clean" else None
        quality = c.quality
        yield {
            "images": c.which,
            **threat_columns(c.threat, c.attack),
            "n": c.n,
            **rate_columns("accuracy", c.accuracy),
            **rate_columns("accuracy_8bit", c.accuracy_8bit),
            **rate_columns("balanced_accuracy", c.balanced_accuracy),
            **rate_columns("f1_macro", c.f1_macro),
            **rate_columns("auroc", c.auroc),
            **rate_columns("attack_success", c.success),
            "mse_mean": quality.mse.mean if quality else None,
            "psnr_mean": quality.psnr.mean if quality else None,
            "ssim_mean": quality.ssim.mean if quality else None,
            **rate_columns("flagged", found.tpr if found else fpr),
        }


def _per_class(assessment: Assessment) -> Iterator[Row]:
    for c in assessment.conditions:
        for s in (*c.per_class, c.macro, c.weighted):
            yield {
                "images": c.which,
                **threat_columns(c.threat, c.attack),
                "class": s.name,
                "precision": s.precision,
                "recall": s.recall,
                "f1": s.f1,
                "support": s.support,
            }


def _confusion(assessment: Assessment) -> Iterator[Row]:
    for c in assessment.conditions:
        for cell in c.confusion:
            yield {
                "images": c.which,
                **threat_columns(c.threat, c.attack),
                "true": cell.true,
                "predicted": cell.predicted,
                "count": cell.count,
            }


def _tests(assessment: Assessment) -> Iterator[Row]:
    for test in assessment.tests:
        yield {
            "first": test.first,
            "second": test.second,
            **threat_columns(test.threat, assessment.attack),
            "n": test.n,
            **rate_columns("difference", test.difference),
            "t": test.t,
            "t_p": test.t_p,
            "first_only": test.first_only,
            "second_only": test.second_only,
            "mcnemar_p": test.mcnemar_p,
            "remark": test.remark,
        }


def _detection(assessment: Assessment) -> pd.DataFrame:
    detection = assessment.detection
    columns = [
        "detector", "attack", "knowledge", "norm", "eps", "n", "threshold", "nominal_fpr",
        "fpr", "fpr_low", "fpr_high", "tpr", "tpr_low", "tpr_high",
        "auroc", "auroc_low", "auroc_high",
        *(f"tpr_at_{fpr:g}{end}" for fpr in FPRS for end in ("", "_low", "_high")),
    ]  # fmt: skip
    rows: list[Row] = [
        {
            "detector": detection.detector,
            **threat_columns(result.threat, assessment.attack),
            "n": result.n,
            "threshold": detection.threshold,
            "nominal_fpr": detection.nominal_fpr,
            **rate_columns("fpr", detection.fpr),
            **rate_columns("tpr", result.tpr),
            **rate_columns("auroc", result.auroc),
            **{
                k: v
                for at in result.at
                for k, v in rate_columns(f"tpr_at_{at.fpr:g}", at.tpr).items()
            },
        }
        for result in (detection.results if detection else ())
        if detection
    ]
    return pd.DataFrame(rows, columns=columns)


def _per_image(assessment: Assessment, seen: Observations) -> pd.DataFrame:
    names = dict(enumerate(assessment.classes))
    threshold = assessment.detection.threshold if assessment.detection else None
    frames = []
    for number, threat in enumerate(assessment.threats):
        at = divmod(number, len(assessment.plan["epsilons"]))
        frame = pd.DataFrame(
            {
                "path": seen.paths,
                "label": pd.Series(seen["label"]).map(names),
                **threat_columns(threat, assessment.attack),
                "clean_confidence": seen["clean_conf"],
                "purified_confidence": seen["purified_conf"],
                "attacked_confidence": seen["attacked_conf"][at],
                "restored_confidence": seen["restored_conf"][at],
                "score_clean": seen["clean_score"],
                "score": seen["attacked_score"][at],
            }
        )
        for kind in ("clean", "purified"):
            frame[f"{kind}_prediction"] = pd.Series(seen[f"{kind}_pred"]).map(names)
        for kind in ("attacked", "restored"):
            frame[f"{kind}_prediction"] = pd.Series(seen[f"{kind}_pred"][at]).map(names)
            for quantity in ("mse", "psnr", "ssim"):
                frame[f"{kind}_{quantity}"] = seen[f"{kind}_{quantity}"][at]
        flagged = pd.Series(pd.NA, index=frame.index, dtype="boolean")
        frame["flagged"] = flagged if threshold is None else frame["score"] > threshold
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
