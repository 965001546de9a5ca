"""A purifier is not credited with what the attack told it."""

from __future__ import annotations

import dataclasses

import pytest
from torch import Tensor

from jernih.assess import AssessmentPlan, assess
from jernih.assess.checks import find_warnings
from jernih.assess.plan import SurveyPlan
from jernih.assess.survey import survey
from jernih.attacks import FGSM
from jernih.purifiers.base import Purifier
from jernih.types import Labels
from tests.assess.examples import Scenes, assessment, defended_model, made_to_order
from tests.assess.test_checks import SOUND, both, share
from tests.assess.test_run import Noise


class Overdone(Purifier):
    """Takes the checkerboard away several times over; on a clean image there is none."""

    name = "overdone"
    learns = "nothing"

    def restore(self, images: Tensor) -> Tensor:
        tiles = images.unfold(2, 2, 2).unfold(3, 2, 2)
        signs = images.new_tensor([[-1.0, 1.0], [1.0, -1.0]])
        size = (tiles * signs).mean((4, 5), keepdim=True) * signs
        taken = (tiles - 3 * size).permute(0, 1, 2, 4, 3, 5).reshape(images.shape)
        return taken.clamp(0, 1)


@pytest.mark.parametrize(
    ("purified", "restored", "why"),
    [
        (0.8, 0.81, "no more than one image in a hundred"),
        (0.95, 0.95, "the purifier mends clean images as well"),
        (0.8, 0.6, "fewer are right"),
    ],
)
def test_a_label_leaks_only_where_an_attack_makes_images_righter(
    purified: float, restored: float, why: str
) -> None:
    right = {
        **SOUND,
        "clean": share(0.8)[0],
        "purified": share(purified)[0],
        "restored": both((restored, 0.6), (0.6, 0.5)),
    }
    found = made_to_order(right, made=AssessmentPlan(Noise(), ("2/255", "4/255")))
    assert "label leak" not in {finding.check for finding in found.warnings}, why


class Confusing(Scenes):
    """Every fourth scene is called what it is not, so that the classifier is wrong on it."""

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        image, label, position = super().__getitem__(index)
        return image, 1 - label if index % 4 == 0 else label, position


@pytest.mark.parametrize(
    ("labels", "restored", "leaks"), [("true", 1, True), ("predicted", 0.75, False)]
)
def test_a_survey_led_by_true_labels_is_warned_of(
    labels: Labels, restored: float, leaks: bool
) -> None:
    attack = AssessmentPlan(FGSM(), ("4/255",), ("oblivious",))
    classifier = defended_model().classifier
    told = survey(
        classifier, {"main": Overdone()}, Confusing(40), SurveyPlan("t", attack, labels=labels)
    )
    right = [row.accuracy.value for row in told.rows]
    assert (right[0], right[1], right[-1]) == (0.75, 0.75, restored)
    warned = [f.text for f in find_warnings(assessment(), [told]) if f.check == "label leak"]
    assert len(warned) == leaks
    assert all("oblivious fgsm, L∞ ≤ 4/255: 100.0 %" in text for text in warned)
    assert all("Ask a survey with labels: predicted" in text for text in warned)


def test_a_survey_led_by_predicted_labels_is_not_told_to_ask_one() -> None:
    attack = AssessmentPlan(FGSM(), ("4/255",), ("oblivious",))
    told = survey(
        defended_model().classifier, {"main": Overdone()}, Confusing(40), SurveyPlan("t", attack)
    )
    led = dataclasses.replace(told, attack={**told.attack, "labels": "predicted"})
    texts = [f.text for f in find_warnings(assessment(), [led]) if f.check == "label leak"]
    assert len(texts) == 1
    assert "led some images back to their true class" in texts[0]
    assert "labels: predicted" not in texts[0]


def test_an_assessment_with_true_labels_is_warned_of() -> None:
    made = AssessmentPlan(FGSM(), ("4/255",), ("oblivious",))
    names = [str(k) for k in range(40)]
    found = assess(defended_model(Overdone()), Confusing(40), names, made)
    assert found.condition("restored", found.threats[0]).accuracy.value == 1
    assert "label leak" in {finding.check for finding in found.warnings}
