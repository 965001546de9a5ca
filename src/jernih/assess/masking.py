"""Signs of gradient masking: attacks that ought to be weaker and turn out to be stronger.

A gradient attack that sees the whole model should do no worse than one that sees less of it, takes
fewer steps, or has a smaller bound. Where it does worse, its gradients are at fault, and the
accuracy under it says little about the model (Athalye et al., arXiv:1802.00420; Carlini et al.,
arXiv:1902.06705).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any, Literal

from jernih.assess.result import Assessment, Rate, Severity
from jernih.assess.survey_result import BARE, Survey
from jernih.assess.words import format_eps, format_norm, format_rate
from jernih.attacks import ATTACKS
from jernih.types import Labels, Norm, Threat

Kind = Literal["gradient", "single step", "black box", "transfer", "control"]
"""How an attack came by its perturbation. Transfer: with the gradient of another model, such as of
the classifier without its purifier."""

WHITE: tuple[Kind, ...] = ("gradient", "single step")

UNBOUNDED_AT: dict[Norm, float] = {"linf": 1.0, "l2": 1e3, "l1": 1e6}
"""Bounds within which any image can become any other: pixels and channels in all up to a million
(577 × 577 in colour)."""

CLASSIFIER = "the classifier"
DEFENDED = "the defended model"

Key = tuple[str, Labels, Norm, float]
Remark = tuple[Severity, str]


@dataclass(frozen=True)
class Measured:
    """The accuracy of one model under one attack.

    Attributes:
        model: what was attacked, such as ``"the classifier"``.
        attack: the attack's name.
        steps: how many steps it took; None where it has no such number.
        kind: how it came by its perturbation.
        norm: the norm of its bound.
        eps: the bound.
        accuracy: share of the images still classified correctly.
        labels: what it led away from. One that leads away from predicted labels leaves alone the
            images that were wrong before, so it is not held against one that does not.
    """

    model: str
    attack: str
    steps: int | None
    kind: Kind
    norm: Norm
    eps: float
    accuracy: Rate
    labels: Labels = "true"

    @property
    def named(self) -> str:
        """The attack and its bound in a few words."""
        steps = "" if self.steps is None else f"-{self.steps}"
        bound = f"{format_norm(self.norm)} ≤ {format_eps(self.eps)}"
        led = " of predicted labels" if self.labels == "predicted" else ""
        return f"{self.attack}{steps}{led} ({self.kind}, {bound})"

    @property
    def key(self) -> Key:
        """What attacks must share to be compared."""
        return self.model, self.labels, self.norm, self.eps


def kind_of(attack: Mapping[str, Any]) -> Kind:
    """The kind of an attack given as plain data, when it sees the model that it is tried on."""
    name = attack["name"]
    if name in ATTACKS:
        needs = ATTACKS.get(name).needs
        if needs != "gradients":
            return "control" if needs == "nothing" else "black box"
    # A method of one gradient has no number of steps to tell it by.
    return "single step" if name in ("fgsm", "r-fgsm") or attack.get("steps") == 1 else "gradient"


def measured_in(assessment: Assessment) -> list[Measured]:
    """What an assessment says of its classifier and of its defended model."""
    found = []
    for threat in assessment.threats:
        restored = assessment.condition("restored", threat).accuracy
        plain = assessment.plan["attack"]
        found.append(_measured(DEFENDED, plain, threat, restored))
        if threat.knowledge == "oblivious":
            bare = assessment.condition("attacked", threat).accuracy
            found.append(_measured(CLASSIFIER, plain, threat, bare))
    return found


def measured_in_survey(survey: Survey, defended: Mapping[str, Any] | None = None) -> list[Measured]:
    """What a survey says of each model.

    Args:
        survey: the survey.
        defended: description of the purifier to call "the defended model", as an assessment does.
    """
    named = {BARE: CLASSIFIER}
    for name, description in survey.purifiers.items():
        own = defended is not None and description == dict(defended)
        named[name] = DEFENDED if own else f"the classifier behind {name!r}"
    return [
        _measured(named[row.purifier], survey.attack, row.threat, row.accuracy)
        for row in survey.rows
        if row.threat is not None
    ]


def _measured(model: str, attack: Mapping[str, Any], threat: Threat, accuracy: Rate) -> Measured:
    kind = kind_of(attack)
    if kind != "control" and threat.knowledge == "oblivious" and model != CLASSIFIER:
        kind = "transfer"
    steps = attack.get("steps")
    labels: Labels = "predicted" if attack.get("labels") == "predicted" else "true"
    return Measured(model, attack["name"], steps, kind, threat.norm, threat.eps, accuracy, labels)


def clearly_lower(first: Rate, second: Rate) -> bool:
    """Whether a share is below another by more than chance: each outside the other's interval."""
    return first.value < second.low and second.value > first.high


def less_knowledge_wins(measured: Iterable[Measured]) -> Iterator[Remark]:
    """A black-box, transferred or blind attack that beats every gradient attack on the model."""
    found = []
    for group in _groups(measured):
        white = _strongest(group, WHITE)
        if white is not None:
            others = (m for m in group if m.kind not in WHITE)
            found += [(m, white) for m in others if clearly_lower(m.accuracy, white.accuracy)]
    if found:
        yield (
            "serious",
            "Attacks that see less of the model beat those that follow its gradient, so the "
            "gradient does not show how weak it is, and its accuracy under gradient attacks is "
            f"no measure of robustness. {_listed(found)}",
        )


def one_step_wins(measured: Iterable[Measured]) -> Iterator[Remark]:
    """An attack of one step that beats every one of many."""
    found = []
    for group in _groups(measured):
        many = _strongest(group, ("gradient",))
        single = _strongest(group, ("single step",))
        if many and single and clearly_lower(single.accuracy, many.accuracy):
            found.append((single, many))
    if found:
        yield (
            "serious",
            "An attack of one step beats those of many within the same bound, which a model with "
            f"useful gradients does not allow. {_listed(found)}",
        )


def fewer_steps_win(measured: Iterable[Measured]) -> Iterator[Remark]:
    """An attack that does worse with more steps."""
    found = []
    for group in _groups(measured):
        order = sorted(
            (m for m in group if m.kind in WHITE and m.steps is not None),
            key=lambda m: (m.attack, m.steps or 0),
        )
        found += [
            (a, b)
            for a, b in pairwise(order)
            if a.attack == b.attack and a.steps != b.steps and clearly_lower(a.accuracy, b.accuracy)
        ]
    if found:
        yield (
            "caution",
            f"An attack does worse with more steps than with fewer. {_listed(found)}",
        )


def larger_bound_loses(measured: Iterable[Measured]) -> Iterator[Remark]:
    """An attack that fools fewer images within a larger bound."""
    order = sorted(
        (m for m in measured if m.kind in (*WHITE, "black box")),
        key=lambda m: (m.model, m.labels, m.attack, m.steps or 0, m.norm, m.eps),
    )
    rises = [
        (a, b)
        for a, b in pairwise(order)
        if replace(a, eps=b.eps, accuracy=b.accuracy) == b and clearly_lower(a.accuracy, b.accuracy)
    ]
    if rises:
        yield (
            "caution",
            "Accuracy does not fall with the bound, although every image of the smaller lies in "
            "the larger. One large step can overshoot, and can push all images into one class "
            "that some of them belong to; an attack of many steps has not found what is there. "
            f"Do not read the larger bound as the safer one. {_listed(rises)}",
        )


def unbounded_fails(measured: Iterable[Measured]) -> Iterator[Remark]:
    """An attack of many steps that may change everything and leaves images classified correctly."""
    left = [
        f"{_capital(m.model)} (n = {m.accuracy.n}) is right on {format_rate(m.accuracy)} "
        f"under {m.named}."
        for m in measured
        if m.kind == "gradient" and m.eps >= UNBOUNDED_AT[m.norm] and m.accuracy.successes > 0
    ]
    if left:
        yield (
            "serious",
            "An attack that may turn any image into any other still leaves some of them "
            "classified correctly. It has failed, then, and at smaller bounds it may have failed "
            f"too. {' '.join(left)}",
        )


def _groups(measured: Iterable[Measured]) -> Iterator[list[Measured]]:
    """Results on the same model within the same bound."""
    order = sorted(measured, key=lambda m: m.key)
    for _, group in groupby(order, key=lambda m: m.key):
        yield list(group)


def _strongest(group: Iterable[Measured], kinds: Sequence[Kind]) -> Measured | None:
    members = (m for m in group if m.kind in kinds)
    return min(members, key=lambda m: m.accuracy.value, default=None)


def _listed(pairs: Iterable[tuple[Measured, Measured]]) -> str:
    return " ".join(
        f"{_capital(a.model)} (n = {a.accuracy.n}) is right on {format_rate(a.accuracy)} "
        f"under {a.named}, and on {format_rate(b.accuracy)} under {b.named}."
        for a, b in pairs
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


MASKING: dict[str, Callable[[Sequence[Measured]], Iterator[Remark]]] = {
    "gradient masking": less_knowledge_wins,
    "one step beats many": one_step_wins,
    "more steps do not help": fewer_steps_win,
    "not monotone": larger_bound_loses,
    "unbounded attack": unbounded_fails,
}
"""All checks of results beside each other, by name."""
