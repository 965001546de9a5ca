from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from jernih.assess import AssessmentPlan, Background
from jernih.assess.checks import find_warnings
from jernih.assess.masking import (
    MASKING,
    Measured,
    clearly_lower,
    kind_of,
    measured_in,
    measured_in_survey,
)
from jernih.assess.plan import SurveyPlan
from jernih.assess.report import render
from jernih.assess.statistics import rate
from jernih.assess.survey import survey
from jernih.assess.survey_result import Survey
from jernih.attacks import PGD, Attack, UniformNoise
from jernih.purifiers import Identity
from jernih.types import Knowledge
from tests.assess.examples import Scenes, defended_model, made_to_order
from tests.assess.test_checks import SOUND, both, share

N = 200


def seen(accuracy: float, attack: str = "pgd", **changes: Any) -> Measured:
    """One result at L∞ ≤ 8/255 on 200 images."""
    given: dict[str, Any] = {
        "model": "the classifier",
        "attack": attack,
        "steps": 40 if attack == "pgd" else None,
        "kind": "gradient",
        "norm": "linf",
        "eps": 8 / 255,
        "accuracy": rate(np.arange(N) < accuracy * N),
    }
    return Measured(**{**given, **changes})


def checks(*measured: Measured) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for name, check in MASKING.items():
        for severity, text in check(measured):
            found[name] = (severity, text)
    return found


def one_step(accuracy: float) -> Measured:
    return seen(accuracy, "fgsm", kind="single step")


def test_sound_results_pass() -> None:
    assert (
        checks(
            seen(0.3),
            seen(0.31, steps=20),
            seen(0.1, eps=16 / 255),
            seen(0.0, eps=1.0),
            one_step(0.4),
            seen(0.35, "square", kind="black box"),
            seen(0.9, "uniform-noise", kind="control"),
            seen(0.7, kind="transfer"),
        )
        == {}
    )


@pytest.mark.parametrize("kind", ["black box", "transfer", "control"])
def test_less_knowledge_that_wins_is_gradient_masking(kind: Any) -> None:
    severity, text = checks(seen(0.6), seen(0.4, "square", kind=kind))["gradient masking"]
    assert severity == "serious"
    assert f"right on 40.0 % [33.5, 46.9] under square ({kind}, L∞ ≤ 8/255)" in text
    assert "60.0 %" in text
    assert "n = 200" in text


def test_only_the_strongest_gradient_attack_counts() -> None:
    weak, strong = seen(0.9, "fgsm", kind="single step"), seen(0.4)
    assert "gradient masking" not in checks(weak, strong, seen(0.4, "square", kind="black box"))


@pytest.mark.parametrize(
    "changes", [{"eps": 4 / 255}, {"model": "the defended model"}, {"norm": "l2"}]
)
def test_only_like_is_compared_with_like(changes: dict[str, Any]) -> None:
    assert "gradient masking" not in checks(
        seen(0.6), seen(0.4, "square", kind="black box", **changes)
    )


def test_differences_within_the_intervals_are_chance() -> None:
    assert checks(seen(0.5), seen(0.45, "square", kind="black box"), one_step(0.46)) == {}
    lower, higher = (rate(np.arange(N) < k) for k in (80, 100))
    assert clearly_lower(lower, higher)
    assert not clearly_lower(higher, lower)
    assert not clearly_lower(lower, lower)


def test_one_step_that_beats_many() -> None:
    severity, text = checks(seen(0.6), one_step(0.4))["one step beats many"]
    assert severity == "serious"
    assert "fgsm (single step" in text
    assert "pgd-40 (gradient" in text


def test_more_steps_that_do_not_help() -> None:
    severity, text = checks(seen(0.4, steps=10), seen(0.6, steps=100))["more steps do not help"]
    assert severity == "caution"
    assert "pgd-100" in text
    assert "more steps do not help" not in checks(seen(0.6, steps=10), seen(0.4, steps=100))


def test_a_larger_bound_that_does_not_help() -> None:
    severity, text = checks(seen(0.4), seen(0.6, eps=16 / 255))["not monotone"]
    assert severity == "caution"
    assert "16/255" in text
    assert checks(seen(0.4, kind="transfer"), seen(0.6, eps=16 / 255, kind="transfer")) == {}


@pytest.mark.parametrize(("norm", "eps"), [("linf", 1.0), ("l2", 1e4), ("l1", 1e6)])
def test_an_unbounded_attack_that_fails(norm: Any, eps: float) -> None:
    severity, text = checks(seen(0.01, norm=norm, eps=eps))["unbounded attack"]
    assert severity == "serious"
    assert "1.0 %" in text
    assert checks(seen(0.0, norm=norm, eps=eps)) == {}
    assert checks(seen(0.5, norm=norm, eps=eps, kind="single step")) == {}
    assert checks(seen(0.01, norm=norm, eps=eps / 2 if norm == "linf" else 10)) == {}


@pytest.mark.parametrize(
    ("attack", "kind"),
    [
        ({"name": "pgd", "steps": 40}, "gradient"),
        ({"name": "pgd", "steps": 1}, "single step"),
        ({"name": "fgsm"}, "single step"),
        ({"name": "r-fgsm"}, "single step"),
        ({"name": "deepfool", "steps": 50}, "gradient"),
        ({"name": "square", "steps": 5000}, "black box"),
        ({"name": "uniform-noise"}, "control"),
        ({"name": "of your own"}, "gradient"),
    ],
)
def test_kinds_of_attacks(attack: dict[str, Any], kind: str) -> None:
    assert kind_of(attack) == kind


def plan(attack: Attack | None = None, *knowledge: Knowledge) -> AssessmentPlan:
    return AssessmentPlan(
        attack or PGD(steps=2), ("4/255",), knowledge or ("oblivious", "adaptive"), batch_size=8
    )


def test_an_assessment_tells_of_the_classifier_and_the_defended_model() -> None:
    right = {
        "attacked": np.stack([share(0.2), share(0.9)]),
        "restored": np.stack([share(0.4), share(0.6)]),
    }
    found = made_to_order({**SOUND, **right}, made=plan())
    told = [(m.model, m.kind, m.accuracy.value) for m in measured_in(found)]
    assert told == [
        ("the defended model", "transfer", 0.4),
        ("the classifier", "gradient", 0.2),
        ("the defended model", "gradient", 0.6),
    ]
    warnings = {w.check: w for w in found.warnings}
    assert "pgd-2 (transfer" in warnings["gradient masking"].text


def test_the_path_that_is_attacked_has_to_fall_with_the_bound() -> None:
    """Against an adaptive attacker that is the defended model, whatever the bare one does."""
    made = AssessmentPlan(PGD(steps=2), (0.1, 0.2))
    bare = both((0.5, 0.2), (0.4, 0.6))
    calm = made_to_order({**SOUND, "attacked": bare}, made=made)
    assert "not monotone" not in {w.check for w in calm.warnings}
    rising = both((0.9, 0.9), (0.4, 0.6))
    found = made_to_order({**SOUND, "restored": rising}, made=made)
    assert "not monotone" in {w.check for w in found.warnings}


def test_attacks_led_by_other_labels_are_not_held_against_each_other() -> None:
    led = one_step(0.0), replace(one_step(0.2), labels="predicted", eps=9 / 255)
    assert checks(*led) == {}
    assert "not monotone" in checks(led[0], replace(led[1], labels="true"))
    many = seen(0.2, labels="predicted")
    assert checks(led[0], many) == {}
    assert "one step beats many" in checks(led[0], replace(many, labels="true"))
    assert many.named == "pgd-40 of predicted labels (gradient, L∞ ≤ 8/255)"


def test_a_survey_says_what_led_its_attack() -> None:
    model = defended_model(detector=False)
    for labels in ("true", "predicted"):
        made = SurveyPlan("s", plan(PGD(steps=2), "oblivious"), labels=labels)
        told = measured_in_survey(survey(model.classifier, {"a": Identity()}, Scenes(8), made))
        assert {m.labels for m in told} == {labels}


def surveyed(attack: Attack, knowledge: Knowledge, n: int = 20) -> Survey:
    model = defended_model(detector=False)
    purifiers = {"main": model.purifier, "other": Identity()}
    return survey(model.classifier, purifiers, Scenes(n), SurveyPlan("s", plan(attack, knowledge)))


def test_surveys_are_held_against_the_assessment() -> None:
    noise = surveyed(UniformNoise(), "oblivious")
    told = measured_in_survey(noise, {"name": "smooth"})
    assert [(m.model, m.kind) for m in told] == [
        ("the classifier", "control"),
        ("the defended model", "control"),
        ("the classifier behind 'other'", "control"),
    ]
    transfer = measured_in_survey(surveyed(PGD(steps=2), "oblivious"))
    assert [m.kind for m in transfer] == ["gradient", "transfer", "transfer"]
    assert {m.kind for m in measured_in_survey(surveyed(PGD(steps=2), "adaptive"))} == {"gradient"}


def test_a_survey_that_beats_the_assessment_is_told_in_the_report() -> None:
    found = made_to_order(
        {"attacked": np.ones((2, 1, N), bool), "restored": np.ones((2, 1, N), bool)},
        made=plan(),
        model=defended_model(detector=False),
    )
    noise = surveyed(UniformNoise(), "oblivious")
    assert find_warnings(found, [noise]) == found.warnings
    third = rate(np.arange(N) < N // 3)
    beaten = replace(noise, rows=tuple(replace(row, accuracy=third) for row in noise.rows))
    named = {finding.check: finding.text for finding in find_warnings(found, [beaten])}
    assert "The defended model (n = 200) is right on 33.0 %" in named["gradient masking"]
    assert "gradient masking" not in {finding.check for finding in found.warnings}
    page = render(found, {}, {}, Background(surveys=[beaten]))
    assert "serious, gradient masking" in page
    assert "serious, gradient masking" not in render(found, {}, {}, Background(surveys=[noise]))
