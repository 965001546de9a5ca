"""Numbers and threat models as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jernih.assess.result import Assessment, Condition, Interval, Rate
from jernih.types import Norm, Threat

DASH = "–"


def format_eps(eps: float) -> str:
    """A bound as people write it: a short decimal, or ``"8/255"`` where it is such a fraction.

    Example:
        >>> format_eps(8 / 255), format_eps(0.1)
        ('8/255', '0.1')
    """
    steps = eps * 255
    if float(f"{eps:.4g}") != eps and steps > 0.5 and abs(steps - round(steps)) < 1e-6:
        return f"{round(steps)}/255"
    return f"{eps:.4g}"


def format_attack(attack: Mapping[str, Any]) -> str:
    """A described attack's name with its number of steps, such as ``"pgd-40"``.

    One that leads away from predicted classes instead of true ones is named so.
    """
    steps = attack.get("steps")
    name = f"{attack['name']}-{steps}" if steps else str(attack["name"])
    return f"{name} of predicted labels" if attack.get("labels") == "predicted" else name


def format_unit(unit: Mapping[str, Any] | str) -> str:
    """A described unit in a few words.

    Example:
        >>> format_unit({"name": "squeezing", "with": ({"name": "bits", "bits": 5}, "median")})
        'squeezing, with bits, bits 5 + median'
    """
    if isinstance(unit, str):
        return unit
    options = [f"{name} {_option(value)}" for name, value in unit.items() if name != "name"]
    return ", ".join([str(unit["name"]), *options])


def _option(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " + ".join(_option(one) for one in value)
    if isinstance(value, Mapping):
        return format_unit(value) if "name" in value else str(dict(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def format_norm(norm: Norm) -> str:
    """A norm as people write it."""
    return {"linf": "L∞", "l2": "L2", "l1": "L1"}[norm]


def format_threat(threat: Threat | None, attack: str) -> str:
    """A threat model in a few words, such as ``"oblivious fgsm, L∞ ≤ 8/255"``."""
    if threat is None:
        return "no attack"
    knows = threat.knowledge + (", detector-aware" if threat.detector_aware else "")
    return f"{knows} {attack}, {format_norm(threat.norm)} ≤ {format_eps(threat.eps)}"


def percent(share: float) -> str:
    """A share as a percentage with one decimal.

    Example:
        >>> percent(0.5)
        '50.0 %'
    """
    return f"{100 * share:.1f} %"


def format_rate(rate: Rate | None) -> str:
    """A rate with its interval, such as ``"90.0 % [59.6, 98.2]"``."""
    if rate is None:
        return DASH
    return f"{percent(rate.value)} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def format_interval(interval: Interval | None, *, as_percent: bool = True) -> str:
    """An estimate with its interval, as percentages or to three decimals."""
    if interval is None or interval.value is None:
        return DASH
    scale, digits, sign = (100, 1, " %") if as_percent else (1, 3, "")
    text = f"{scale * interval.value:.{digits}f}{sign}"
    if interval.low is None or interval.high is None:
        return text
    return f"{text} [{scale * interval.low:.{digits}f}, {scale * interval.high:.{digits}f}]"


def by_class(condition: Condition) -> str:
    """Balanced accuracy and recalls in a few words; a dash with more than twelve classes."""
    if len(condition.per_class) > 12:
        return DASH
    recalls = ", ".join(f"{scores.name} {percent(scores.recall)}" for scores in condition.per_class)
    return f"balanced {format_interval(condition.balanced_accuracy)}; recall {recalls}"


def format_number(value: float | None, digits: int = 3) -> str:
    """A number to so many significant digits; a dash for none."""
    return DASH if value is None else f"{value:.{digits}g}"


def format_p(value: float | None) -> str:
    """A p-value: three decimals, or ``"< 0.001"``."""
    if value is None:
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def verdict(assessment: Assessment) -> tuple[str, ...]:
    """What the numbers say, one sentence or two for each kind of attacker, at the largest bound.

    Every share is named with its threat model, its interval and the number of images.
    """
    clean = assessment.condition("clean").accuracy
    purified = assessment.condition("clean through purifier").accuracy
    sentences = [
        f"Without an attack the classifier is right on {format_rate(clean)} of "
        f"{assessment.n} images, and on {format_rate(purified)} when they first pass the purifier."
    ]
    for knowledge in dict.fromkeys(threat.knowledge for threat in assessment.threats):
        threat = max(
            (t for t in assessment.threats if t.knowledge == knowledge), key=lambda t: t.eps
        )
        sentences.append(_verdict_on(assessment, threat))
    return tuple(sentences)


def _verdict_on(assessment: Assessment, threat: Threat) -> str:
    clean = assessment.condition("clean").accuracy
    purified = assessment.condition("clean through purifier").accuracy
    attacked = assessment.condition("attacked", threat).accuracy
    restored = assessment.condition("restored", threat).accuracy
    named = format_threat(threat, assessment.attack)
    if threat.knowledge == "adaptive":
        text = (
            f"Against an attacker who knows the purifier ({named}) the defended model is right "
            f"on {format_rate(restored)} of {restored.n} images"
        )
        lost = purified.value - restored.value
        return text + f", {100 * lost:.1f} points below its accuracy without an attack."
    text = (
        f"Against an attacker who does not know the purifier ({named}) the bare classifier is "
        f"right on {format_rate(attacked)} of {attacked.n} images and the defended model on "
        f"{format_rate(restored)}. "
    )
    broken = clean.value - attacked.value
    gained = restored.value - attacked.value
    tests = [t for t in assessment.tests if t.threat == threat and t.first == "attacked"]
    p = tests[0].mcnemar_p
    if broken <= 0:
        return text + "The attack breaks nothing here, so nothing can be restored."
    if p >= 0.05:
        return text + f"The two do not differ measurably (McNemar p = {format_p(p)})."
    if gained < 0:
        return text + f"The purifier makes matters worse by {-100 * gained:.1f} points."
    share = f"{100 * gained / broken:.0f} %"
    return text + (
        f"Restoration wins back {100 * gained:.1f} of the {100 * broken:.1f} points that the "
        f"attack took ({share})."
    )
