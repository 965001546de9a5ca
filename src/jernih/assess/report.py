"""The report: JSON, tables, figures and one page of HTML that needs nothing beside itself."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from rich.box import SIMPLE_HEAD
from rich.table import Table

from jernih.assess import words
from jernih.assess.checks import find_warnings
from jernih.assess.detection_result import DetectionSurvey
from jernih.assess.detection_tables import (
    attacked_rows,
    detection_frame,
    harmless_rows,
    thresholds_told,
)
from jernih.assess.figures import (
    Plot,
    catalogue,
    threat_key,
    write_figures,
    write_training_curves,
)
from jernih.assess.figures.style import save_figure
from jernih.assess.figures.sweep import draw_sweep
from jernih.assess.operating_point import OperatingPoint
from jernih.assess.published import ComparedFigure
from jernih.assess.result import Assessment, Cell, Condition, PairedTest
from jernih.assess.survey_result import Survey
from jernih.assess.tables import (
    SUMMARY_COLUMNS,
    summary_rows,
    survey_frame,
    survey_rows,
    write_tables,
)
from jernih.storage import write_text
from jernih.types import Threat

SWEPT = 4
"""A survey of at least so many threat models is drawn as curves."""


@dataclass(frozen=True)
class Background:
    """What a report tells beside the assessment.

    Attributes:
        title: the report's title.
        data: what Explore found, as in ``explore.json``.
        pictures: further PNG files by caption: samples, defects, augmentation.
        histories: CSV files of training curves by what was trained.
        config: the run's settings as YAML.
        notes: sentences that a reader should know about the data or the run.
        study: the publication that the run reproduces, if any.
        compared: its figures beside the measured ones.
        study_notes: what to know about them.
        surveys: further measurements of accuracies.
        detections: what several detectors find, and their false alarms.
        thresholds: decision thresholds for a wanted recall, by which model they are for.
        layers: tables of layers by what they are of.
        areas: PNG files of the areas that mattered to the classifier, by caption.
    """

    title: str = "Assessment"
    data: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, Path] = field(default_factory=dict)
    histories: Mapping[str, Path] = field(default_factory=dict)
    config: str = ""
    notes: Sequence[str] = ()
    study: str = ""
    compared: Sequence[ComparedFigure] = ()
    study_notes: Sequence[str] = ()
    surveys: Sequence[Survey] = ()
    detections: Sequence[DetectionSurvey] = ()
    thresholds: Mapping[str, OperatingPoint] = field(default_factory=dict)
    layers: Mapping[str, str] = field(default_factory=dict)
    areas: Mapping[str, Path] = field(default_factory=dict)


def write_report(
    assessment: Assessment, folder: Path, background: Background | None = None
) -> Path:
    """Write everything about an assessment to a folder.

    Args:
        assessment: one with its observations, as :func:`jernih.assess.assess` returns it.
        folder: receives ``assessment.json``, ``tables/``, ``figures/`` and ``report.html``.
        background: what to tell beside it.

    Returns:
        the path of ``report.html``, which holds its pictures and opens offline.

    Raises:
        InputError: for an assessment that was read from JSON and has no observations.
    """
    told = background or Background()
    write_tables(assessment, folder / "tables")
    figures = write_figures(assessment, folder / "figures")
    curves = write_training_curves(told.histories, folder / "figures")
    sweeps = {}
    for number, survey in enumerate(told.surveys, start=1):
        survey.save(folder / "surveys" / f"survey-{number}.json")
        frame = survey_frame(survey).to_csv(index=False, lineterminator="\n")
        write_text(folder / "surveys" / f"survey-{number}.csv", frame)
        if len(survey.threats) >= SWEPT:
            path = folder / "figures" / f"survey-{number}.png"
            title = f"{survey.title} ({survey.attack_name}, n = {survey.n})"
            sweeps[survey.title] = save_figure(draw_sweep(survey, title), path)
    for number, detection in enumerate(told.detections, start=1):
        detection.save(folder / "surveys" / f"detection-{number}.json")
        frame = detection_frame(detection).to_csv(index=False, lineterminator="\n")
        write_text(folder / "surveys" / f"detection-{number}.csv", frame)
    assessment.save(folder / "assessment.json")
    return write_text(folder / "report.html", render(assessment, figures, curves, told, sweeps))


def render(
    assessment: Assessment,
    figures: Mapping[str, Path],
    curves: Mapping[str, Path],
    told: Background,
    sweeps: Mapping[str, Path] | None = None,
) -> str:
    """Render the page; a view of the assessment that computes nothing of its own."""
    environment = Environment(
        loader=PackageLoader("jernih.assess"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        rate=words.format_rate,
        interval=words.format_interval,
        number=words.format_number,
        p=words.format_p,
        inline=_inline,
        cell=_cell,
        steady=_steady,
        percent=words.percent,
    )
    beside = bool(told.surveys or told.detections)
    plots = [plot for plot in catalogue(assessment) if plot.key in figures]
    page = environment.get_template("report.html.j2").render(
        a=assessment,
        told=told,
        verdict=words.verdict(assessment),
        findings=find_warnings(assessment, told.surveys, told.detections)
        if beside
        else assessment.warnings,
        columns=SUMMARY_COLUMNS,
        dash=words.DASH,
        rows=summary_rows(assessment),
        overall=[plot for plot in plots if plot.threat is None],
        threats=[_Section.of(assessment, threat, plots) for threat in assessment.threats],
        figures=figures,
        curves=curves,
        surveys=[(survey, *survey_rows(survey)) for survey in told.surveys],
        detections=[
            (found, thresholds_told(found), attacked_rows(found), harmless_rows(found))
            for found in told.detections
        ],
        sweeps=sweeps or {},
        named=lambda threat: words.format_threat(threat, assessment.attack),
    )
    return page + "\n"


def console_table(assessment: Assessment) -> Table:
    """The table of results for a terminal: the bare classifier beside the defended one."""
    level = assessment.plan["level"]
    table = Table(
        title=f"Accuracy in % with {level:.0%} intervals, n = {assessment.n}",
        title_justify="left",
        box=SIMPLE_HEAD,
    )
    for heading in ("Threat model", "Classifier", "Defended", "PSNR\nrestored", "Flagged"):
        justify: Literal["left", "right"] = "left" if heading == "Threat model" else "right"
        table.add_column(heading, justify=justify, no_wrap=True)
    for row in summary_rows(assessment):
        bare = row["Clean"] if row["Attacked"] == words.DASH else row["Attacked"]
        cells = [row["Threat model"], bare, row["Restored"], row["PSNR restored"], row["Flagged"]]
        # Two short lines a cell, so that the table fits into 80 columns.
        table.add_row(*(c.replace(" % [", "\n[").replace(", L", "\nL") for c in cells))
    return table


@dataclass(frozen=True)
class _Section:
    """What the page shows of one threat model."""

    title: str
    anchor: str
    conditions: Sequence[Condition]
    tests: Sequence[PairedTest]
    plots: Sequence[Plot]
    confusions: Sequence[tuple[str, Cell]]

    @classmethod
    def of(cls, assessment: Assessment, threat: Threat, plots: Sequence[Plot]) -> _Section:
        attacked = assessment.condition("attacked", threat)
        restored = assessment.condition("restored", threat)
        own = [plot for plot in plots if plot.threat == threat]
        return cls(
            title=words.format_threat(threat, assessment.attack),
            anchor=threat_key(threat),
            conditions=[
                assessment.condition("clean"),
                assessment.condition("clean through purifier"),
                attacked,
                restored,
            ],
            tests=[test for test in assessment.tests if test.threat == threat],
            plots=own,
            confusions=[]
            if any(plot.key.endswith("-confusion") for plot in own)
            else [*_commonest(attacked), *_commonest(restored)],
        )


def _commonest(condition: Condition, most: int = 10) -> list[tuple[str, Cell]]:
    """The cells off the diagonal of the confusion matrix with most images."""
    wrong = [cell for cell in condition.confusion if cell.true != cell.predicted]
    wrong.sort(key=lambda cell: (-cell.count, cell.true, cell.predicted))
    return [(condition.which, cell) for cell in wrong[:most]]


def _steady(text: str) -> str:
    """The text with percentages and intervals that no line break tears apart."""
    steady = re.sub(r"\[(-?[\d.]+), (-?[\d.]+)\]", "[\\1,\N{NO-BREAK SPACE}\\2]", text)
    return steady.replace(" %", "\N{NO-BREAK SPACE}%")


def _cell(text: str) -> Markup:
    """A value with its interval on a line of its own."""
    value, bracket, interval = text.partition(" [")
    if not bracket:
        return escape(text)
    return Markup('<span>{} <span class="range">[{}</span></span>').format(value, interval)


def _inline(path: Path) -> str:
    """A PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(Path(path).read_bytes()).decode("ascii")
