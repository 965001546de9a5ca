"""Reasons to doubt a detector: it flags what nobody attacked."""

from __future__ import annotations

from collections.abc import Iterator

from jernih.assess.detection_result import DetectionSurvey
from jernih.assess.result import Severity
from jernih.assess.words import format_rate, percent

TOO_OFTEN = 2.0
"""False alarms surely above so many times the nominal share are worth a warning."""


def false_alarms(survey: DetectionSurvey) -> Iterator[tuple[Severity, str]]:
    """A caution for each detector whose threshold does not hold on harmless changes."""
    for name, detector in survey.detectors.items():
        most = TOO_OFTEN * detector.nominal_fpr
        found = [
            f"{row.name}: {format_rate(row.alarms[name].flagged)}"
            for row in survey.harmless
            if row.alarms[name].flagged.low > most
        ]
        if found:
            yield (
                "caution",
                f"In “{survey.title}” the detector {name}, whose threshold was set for "
                f"{percent(detector.nominal_fpr)} of false alarms, raises more than twice as many "
                f"on images that nobody attacked (n = {survey.n}): {'; '.join(found)}. Where such "
                f"images are met its alarms do not tell of an attack.",
            )
