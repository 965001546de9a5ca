"""Attacks that tell a purifier the true class, so that its figures are better than nothing allows.

One step away from the true class is a step that a purifier can read: the one that undoes more of
it than was done points at the class (label leaking: Kurakin et al., arXiv:1611.01236). Restored
images are then more often right than the clean ones were.
"""

from __future__ import annotations

from collections.abc import Iterator

from jernih.assess.masking import clearly_lower
from jernih.assess.result import Assessment, Severity
from jernih.assess.survey_result import BARE, Survey
from jernih.assess.words import format_rate, format_threat

MEANING = (
    "No image gets easier by an attack, so this one must have told the purifier the true class, "
    "from which it led away. Ask a survey with labels: predicted instead."
)
LED_BACK = (
    "This attack led away from what the classifier said, also where that was wrong, and so "
    "led some images back to their true class. Look at another attack before you trust these "
    "figures."
)


def label_leaks(assessment: Assessment) -> Iterator[tuple[Severity, str]]:
    """Bounds at which restored images are righter than clean ones, by McNemar's test."""
    clean = assessment.condition("clean").accuracy
    purified = assessment.condition("clean through purifier").accuracy
    found = []
    for test in assessment.tests:
        if (test.first, test.second) != ("clean", "restored"):
            continue
        restored = assessment.condition("restored", test.threat)
        chance = test.mcnemar_p > 1 - clean.level
        if not chance and restored.accuracy.value > max(clean.value, purified.value):
            named = format_threat(restored.threat, restored.attack)
            found.append(f"{named}: {format_rate(restored.accuracy)}")
    if found:
        yield (
            "serious",
            f"Restored images are more often right than the clean ones were "
            f"({format_rate(clean)}; through the purifier {format_rate(purified)}; "
            f"n = {clean.n}): {'; '.join(found)}. {MEANING}",
        )


def label_leaks_in_survey(survey: Survey) -> Iterator[tuple[Severity, str]]:
    """The same of a survey, whose images are not told apart: by intervals."""
    bare = survey.row(BARE, None)
    found = []
    for row in survey.rows:
        own = survey.row(row.purifier, None)
        if bare is None or own is None or row.threat is None or row.purifier == BARE:
            continue
        if all(clearly_lower(clean.accuracy, row.accuracy) for clean in (bare, own)):
            named = format_threat(row.threat, survey.attack_name)
            found.append(f"{row.purifier}, {named}: {format_rate(row.accuracy)}")
    if bare is not None and found:
        meaning = LED_BACK if survey.attack.get("labels") == "predicted" else MEANING
        yield (
            "serious",
            f"In “{survey.title}” restored images are more often right than the clean ones were "
            f"({format_rate(bare.accuracy)} of {survey.n}): {'; '.join(found)}. {meaning}",
        )
