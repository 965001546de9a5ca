"""Reports of finished runs, and two of them beside each other."""

from __future__ import annotations

import os
from pathlib import Path

from jernih.assess import Assessment
from jernih.assess.result import Condition
from jernih.assess.words import DASH, format_interval, format_rate, format_threat
from jernih.validate import InputError

REPORT = Path("assess") / "report.html"
RESULT = Path("assess") / "assessment.json"


def list_runs(folder: str | os.PathLike[str]) -> list[str]:
    """Names of the runs in a folder that were assessed, in alphabetical order."""
    root = Path(folder).expanduser()
    if not root.is_dir():
        return []
    return sorted(run.name for run in root.iterdir() if (run / RESULT).is_file())


def find_run(folder: str | os.PathLike[str], name: str) -> Path:
    """The folder of a run by its name.

    Raises:
        InputError: for a name that is not one of :func:`list_runs`.
    """
    known = list_runs(folder)
    if name not in known:
        raise InputError("run", f"one of {', '.join(map(repr, known)) or 'none'}", repr(name))
    return Path(folder).expanduser() / name


COLUMNS = ("images", "threat model", "n", "first", "second", "difference")


def compare_runs(first: Assessment, second: Assessment) -> list[tuple[str, ...]]:
    """Accuracies of two assessments beside each other, each with its interval.

    A row is a kind of images under a threat model; a dash stands where one of them has none. The
    difference in points is given where both have the row; whether it is more than chance the
    intervals let one judge, as long as both were assessed on the same images.
    """
    rows: dict[tuple[str, str], dict[int, Condition]] = {}
    for side, assessment in enumerate((first, second)):
        for condition in assessment.conditions:
            key = (condition.which, format_threat(condition.threat, condition.attack))
            rows.setdefault(key, {})[side] = condition
    table = []
    for (which, threat), found in rows.items():
        counts = dict.fromkeys(str(condition.n) for condition in found.values())
        shown = [format_rate(found[side].accuracy) if side in found else DASH for side in (0, 1)]
        apart = DASH
        if len(found) == 2:
            points = 100 * (found[1].accuracy.value - found[0].accuracy.value)
            apart = f"{points:+.1f}"
        table.append((which, threat, " / ".join(counts), *shown, apart))
    return table


def remarks(first: Assessment, second: Assessment) -> list[str]:
    """What keeps two assessments from being compared, in sentences."""
    said = []
    if first.n != second.n:
        said.append(f"They were assessed on {first.n} and on {second.n} images.")
    if first.classes != second.classes:
        said.append("Their classes are not the same.")
    ours, theirs = (a.condition("clean").accuracy for a in (first, second))
    if ours != theirs:
        said.append("Their classifiers, or their images, are not the same: clean accuracy differs.")
    unlike = first.attack != second.attack
    if unlike:
        said.append(f"Their attacks are {first.attack} and {second.attack}.")
    return said


def summary(assessment: Assessment) -> str:
    """A run in a few words, in Markdown."""
    clean = assessment.condition("clean")
    return (
        f"{assessment.n} images, {len(assessment.classes)} classes; clean "
        f"{format_rate(clean.accuracy)}, balanced {format_interval(clean.balanced_accuracy)}."
    )
