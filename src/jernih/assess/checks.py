"""Reasons to doubt an assessment, found in its own numbers and said in plain sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from jernih.assess.detection_result import DetectionSurvey
from jernih.assess.false_alarms import false_alarms
from jernih.assess.label_leak import label_leaks, label_leaks_in_survey
from jernih.assess.masking import MASKING, measured_in, measured_in_survey
from jernih.assess.result import Assessment, Condition, Finding, Severity, Which
from jernih.assess.survey_result import Survey
from jernih.assess.words import format_eps, format_norm, format_rate, format_threat, percent
from jernih.types import Threat

WEAK_SUCCESS = 0.2
"""An attack that breaks fewer of the classifier's right answers leaves little to restore."""

COLLAPSED = 0.9
"""Predictions of which more than this share is one class say nothing about the images."""

MARGIN = 0.02
"""Differences of accuracy up to this are not worth a remark."""

RELIANCE = 0.1
"""A loss of accuracy beyond this between the two kinds of attacker shows reliance on secrecy."""

FLAT = 0.1
"""A share of images up to this may lack a gradient, as those with a dead unit do."""

FEW = 100
"""Below this number of images the intervals are wide."""

Check = Callable[[Assessment], Iterator[tuple[Severity, str]]]


def find_warnings(
    assessment: Assessment,
    surveys: Sequence[Survey] = (),
    detections: Sequence[DetectionSurvey] = (),
) -> tuple[Finding, ...]:
    """Run all checks; the serious findings come first.

    Args:
        assessment: what to look at.
        surveys: further results of the same classifier, to hold its attacks against.
        detections: what detectors make of its images.
    """
    order: tuple[Severity, ...] = ("serious", "caution", "note")
    found = [
        Finding(name, severity, text)
        for name, check in CHECKS.items()
        for severity, text in check(assessment)
    ]
    measured = measured_in(assessment)
    for survey in surveys:
        measured += measured_in_survey(survey, assessment.models["purifier"])
    found += [
        Finding(name, severity, text)
        for name, compare in MASKING.items()
        for severity, text in compare(measured)
    ]
    found += [
        Finding("label leak", severity, text)
        for survey in surveys
        for severity, text in label_leaks_in_survey(survey)
    ]
    found += [
        Finding("alarms on harmless changes", severity, text)
        for detection in detections
        for severity, text in false_alarms(detection)
    ]
    return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))


def _series(assessment: Assessment, which: Which) -> Iterator[list[Condition]]:
    """The conditions of one kind for each kind of attacker, by bound."""
    for knowledge in dict.fromkeys(t.knowledge for t in assessment.threats):
        threats = sorted(
            (t for t in assessment.threats if t.knowledge == knowledge), key=lambda t: t.eps
        )
        yield [assessment.condition(which, threat) for threat in threats]


def _strongest(assessment: Assessment, knowledge: str) -> Threat | None:
    threats = [t for t in assessment.threats if t.knowledge == knowledge]
    return max(threats, key=lambda t: t.eps, default=None)


def _named(condition: Condition) -> str:
    return format_threat(condition.threat, condition.attack)


def _weak_attack(assessment: Assessment) -> Iterator[tuple[Severity, str]]:
    threat = _strongest(assessment, "oblivious")
    if threat is None:
        return
    condition = assessment.condition("attacked", threat)
    success = condition.success
    if success is None:
        yield (
            "serious",
            "The classifier is wrong on every image before any attack, so nothing here says "
            "anything about attack or defence.",
        )
    elif success.value < WEAK_SUCCESS:
        yield (
            "serious",
            f"The attack hardly breaks the undefended classifier: even with its largest bound "
            f"({_named(condition)}) it succeeds on {format_rate(success)} of the {success.n} "
            f"images that were classified correctly. There is little to restore, and the "
            f"defence cannot be judged by it.",
        )


def _no_adaptive(assessment: Assessment) -> Iterator[tuple[Severity, str]]:
    if _strongest(assessment, "adaptive") is None:
        yield (
            "serious",
            "Only an attacker who does not know the purifier was tried. What holds against such "
            "an attacker often fails against one who does; nothing here speaks of that case.",
        )


def _single_step(assessment: Assessment) -> Iterator[tuple[Severity, str]]:
    attack = assessment.plan["attack"]
    if attack["name"] == "fgsm" or attack.get("steps") == 1:
        yield (
            "caution",
            f"The only attack is {assessment.attack}, which takes a single step and is weak. "
            f"Accuracy under it is an upper bound on robustness: an attack of many steps within "
            f"the same bound would find more misclassified images, most of all against the "
            f"defended model.",
        )


def _softmax(assessment: Assessment) -> Iterator[tuple[Severity, str]]:
    if assessment.softmax_suspected:
        yield (
            "serious",
            "The classifier's outputs are non-negative and sum to 1 on every image, so they look "
            "like probabilities and not logits. A second softmax flattens the gradient, and the "
            "attack is then weaker than it should be. Remove the softmax from the network.",
        )


def _random(assessment: Assessment) -> Iterator[tuple[Severity, str]]:
    found = [p for p in assessment.probes if p.random and not p.averaged]
    if found:
        listed = "; ".join(f"the {p.model}, on {p.random} of {p.n} images" for p in found)
        yield (
            "serious",
            f"The model is random: two calls with the same clean images give different outputs "
            f"({listed}). A gradient of one draw is a poor guide to the next, so the attack is "
            f"weaker than one on the mean over draws (assess.draws, or "
            f"jernih.adaptive.Expectation), and with other draws every number here would be "
            f"another.",
        )


def _no_gradient(assessment: Assessment) -> Iterator[tuple[Severity, str]]:
    for found in assessment.probes:
        without, flat = found.without_gradient, found.saturated
        if not without or without <= FLAT * found.n:
            continue
        cause = (
            "The cross-entropy is rounded to zero there: attack a difference of logits instead."
            if flat
            else "A step without a gradient, such as rounding, may be at fault: put a surrogate "
            "in its place (jernih.adaptive.BPDA)."
        )
        yield (
            "serious",
            f"The attack follows a gradient that is exactly zero on {without} of {found.n} clean "
            f"images ({found.model}), so on these it is blind. {cause}",
        )


def _out_of_range(assessment: Assessment) -> Iterator[tuple[Severity, str]]:
    for found in assessment.probes:
        if found.outside:
            yield (
                "caution",
                f"Of {found.n} clean images the purifier gives {found.outside} back with pixels "
                f"outside [0, 1], which no camera or file could hold. Image quality is measured "
                f"on that scale, and the classifier was trained on it.",
            )


def _baseline(assessment: Assessment) -> Iterator[tuple[Severity, str]]:
    clean = assessment.condition("clean").accuracy
    share = assessment.majority
    if clean.value <= share.value:
        yield (
            "serious",
            f"Always answering “{assessment.majority_class}” would be right on "
            f"{format_rate(share)} of the {share.n} images; the classifier reaches "
            f"{format_rate(clean)} without any attack. It is not worth attacking.",
        )
        return
    below = [
        condition
        for series in _series(assessment, "restored")
        for condition in series
        if condition.accuracy.value <= share.value < 1
    ]
    if below:
        yield (
            "caution",
            f"After restoration accuracy is no higher than that of always answering "
            f"“{assessment.majority_class}” ({format_rate(share)} of {share.n} images) in these "
            f"conditions: {'; '.join(map(_named, below))}.",
        )


def _reliance(assessment: Assessment) -> Iterator[tuple[Severity, str]]:
    gaps = []
    for threat in assessment.threats:
        informed = Threat(threat.norm, threat.eps, "adaptive")
        if threat.knowledge != "oblivious" or informed not in assessment.threats:
            continue
        unaware = assessment.condition("restored", threat).accuracy
        aware = assessment.condition("restored", informed).accuracy
        if unaware.value - aware.value > RELIANCE:
            gaps.append((unaware.value - aware.value, threat, unaware, aware))
    if gaps:
        _, threat, unaware, aware = max(gaps, key=lambda gap: gap[0])
        yield (
            "serious",
            f"The defence relies on the attacker's ignorance. At {format_norm(threat.norm)} ≤ "
            f"{format_eps(threat.eps)} the defended model is right on {format_rate(unaware)} of "
            f"{unaware.n} images against an attacker who does not know the purifier "
            f"({assessment.attack}, oblivious), and on {format_rate(aware)} against one who does "
            f"(adaptive).",
        )


def _collapse(assessment: Assessment) -> Iterator[tuple[Severity, str]]:
    for which in ("attacked", "restored"):
        found = [
            condition
            for series in _series(assessment, which)
            for condition in series
            if condition.top_share.value > COLLAPSED > assessment.majority.value
        ]
        if found:
            listed = "; ".join(
                f"{_named(c)}: “{c.top_prediction}” on {percent(c.top_share.value)}" for c in found
            )
            yield (
                "caution",
                f"Nearly all predictions on {which} images (n = {assessment.n}) are one class, so "
                f"that accuracy is little more than the share of that class; look at balanced "
                f"accuracy. {listed}.",
            )


def _cost(assessment: Assessment) -> Iterator[tuple[Severity, str]]:
    clean = assessment.condition("clean").accuracy
    purified = assessment.condition("clean through purifier").accuracy
    if clean.value - purified.value > MARGIN:
        yield (
            "caution",
            f"The purifier costs accuracy where nobody attacks: {format_rate(clean)} without it "
            f"and {format_rate(purified)} with it, on {clean.n} clean images.",
        )


def _eight_bit(assessment: Assessment) -> Iterator[tuple[Severity, str]]:
    found = [
        (condition, condition.accuracy_8bit)
        for series in _series(assessment, "attacked")
        for condition in series
        if condition.accuracy_8bit is not None
        and abs(condition.accuracy_8bit.value - condition.accuracy.value) > MARGIN
    ]
    if found:
        listed = "; ".join(
            f"{_named(c)}: {format_rate(c.accuracy)} before and {format_rate(rounded)} after"
            for c, rounded in found
        )
        yield (
            "caution",
            f"Rounding attacked images to 8 bits a channel, as a PNG file does, changes the "
            f"classifier's accuracy (n = {assessment.n}): {listed}.",
        )


def _false_positives(assessment: Assessment) -> Iterator[tuple[Severity, str]]:
    detection = assessment.detection
    if detection is None or detection.fpr is None or detection.nominal_fpr is None:
        return
    if detection.fpr.low > detection.nominal_fpr:
        yield (
            "caution",
            f"The detector flags {format_rate(detection.fpr)} of {detection.fpr.n} clean images, "
            f"more than the {percent(detection.nominal_fpr)} that its threshold was set for: "
            f"these images are unlike those that it was calibrated on.",
        )


def _few(assessment: Assessment) -> Iterator[tuple[Severity, str]]:
    if assessment.n < FEW:
        yield (
            "note",
            f"There are only {assessment.n} images, so the intervals are wide: clean accuracy "
            f"is {format_rate(assessment.condition('clean').accuracy)}.",
        )


CHECKS: dict[str, Check] = {
    "weak attack": _weak_attack,
    "no adaptive attacker": _no_adaptive,
    "reliance on ignorance": _reliance,
    "softmax outputs": _softmax,
    "random model": _random,
    "zero gradient": _no_gradient,
    "out of range": _out_of_range,
    "majority baseline": _baseline,
    "single-step attack": _single_step,
    "collapse into one class": _collapse,
    "cost on clean images": _cost,
    "label leak": label_leaks,
    "8-bit rounding": _eight_bit,
    "false positives": _false_positives,
    "few images": _few,
}
"""All checks of one assessment by itself, by name."""
