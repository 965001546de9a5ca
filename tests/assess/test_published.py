"""Published figures find their counterparts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jernih.assess import AssessmentPlan
from jernih.assess.plan import SurveyPlan
from jernih.assess.published import lay_beside, nearest_bound
from jernih.assess.survey import survey
from jernih.attacks import FGSM, PGD
from jernih.config import Published
from jernih.validate import InputError
from tests.assess.examples import Scenes, Smooth, assessment, defended_model, made_to_order, plan

EPS = "4/255"
AT = {"eps": EPS}
ATTACKED, RESTORED = {"which": "attacked", **AT}, {"which": "restored", **AT}
MISSED = {"measure": "confusion", "label": "bright", "predicted": "dark"}


def published(*figures: dict[str, Any], **others: Any) -> Published:
    return Published.model_validate({"study": "s", "figures": figures, **others})


def test_shares_and_counts() -> None:
    shape = (2, 2, 10)
    attacked, restored = np.zeros(shape, bool), np.zeros(shape, bool)
    attacked[0, 1, :2] = True
    restored[0, 1, :9] = True
    told = made_to_order({"attacked": attacked, "restored": restored})
    rows = lay_beside(
        published(
            {"figure": "clean", "value": 0.93, "measure": "accuracy"},
            {"figure": "attacked", "value": 0.25, "measure": "accuracy", **ATTACKED},
            {"figure": "succeeded", "value": 7, "measure": "wrong", **ATTACKED},
            {"figure": "failed", "value": 3, "measure": "right", **ATTACKED},
            {"figure": "mended", "value": 0.85, "measure": "accuracy", **RESTORED},
        ),
        told,
    )  # fmt: skip
    clean, share, wrong, right, mended = rows
    assert (clean.published, clean.difference, clean.adaptive) == ("93.0 %", "+7.0 points", "–")
    assert clean.measured.startswith("100.0 % [")
    assert clean.threat == "no attack, n = 10"
    assert share.beside.startswith("balanced 20.0 % [")
    assert share.beside.endswith("recall dark 20.0 %, bright 20.0 %")
    assert wrong.beside == "–"
    assert (share.published, share.difference) == ("25.0 %", "-5.0 points")
    assert share.threat == "oblivious fgsm, L∞ ≤ 4/255, n = 10"
    assert (wrong.published, wrong.difference) == ("7", "+1")
    assert wrong.measured.startswith("8 of 10: 80.0 % [49.0, 94.3]")
    assert right.measured.startswith("2 of 10: 20.0 % [5.7, 51.0]")
    assert mended.difference == "+5.0 points"
    assert mended.adaptive.startswith("0.0 % [0.0, ")
    assert mended.adaptive.endswith("(adaptive fgsm, n = 10)")


def test_classes_confusion_and_quality() -> None:
    clean = np.array([1, 1, 1, 0, 1, 1, 1, 1], bool)  # the second image of "bright" is missed
    told = made_to_order({"clean": clean, "attacked": np.ones((2, 2, 8), bool)})
    rows = lay_beside(
        published(
            {"figure": "recall", "value": 0.5, "measure": "recall", "label": "bright"},
            {"figure": "precision", "value": 1, "measure": "precision", "label": "dark"},
            {"figure": "FN", "value": 3, **MISSED},
            {"figure": "TN", "value": 3, **MISSED, "label": "dark"},
            {"figure": "PSNR", "value": 7.8, "measure": "psnr", **RESTORED},
            {"figure": "MSE", "value": 0.1667, "measure": "mse", **RESTORED},
        ),
        told,
    )  # fmt: skip
    assert rows[0].measured == "75.0 % (4 images)"
    assert rows[0].difference == "+25.0 points"
    assert rows[1].measured == "80.0 % (4 images)"
    assert (rows[2].measured, rows[2].difference) == ("1", "-2")
    assert (rows[3].measured, rows[3].difference) == ("4", "+1")
    assert (rows[4].published, rows[4].difference) == ("7.8 dB", "+12.2 dB")
    assert (rows[5].published, rows[5].difference) == ("0.1667", "-0.1567")


def swept(
    attack: Any, knowledge: Any, epsilons: tuple[float, ...], limit: int | None = None
) -> Any:
    chosen = AssessmentPlan(attack, epsilons, knowledge, batch_size=8)
    model = defended_model(detector=False)
    return survey(model.classifier, {"main": Smooth()}, Scenes(20), SurveyPlan("t", chosen, limit))


def test_the_attack_of_most_steps_stands_beside() -> None:
    row = {"figure": "r", "value": 0.9, "measure": "accuracy", **RESTORED}
    surveys = [
        swept(PGD(steps=4), ("adaptive",), (4 / 255,), limit=12),
        swept(FGSM(), ("adaptive",), (4 / 255,)),
    ]
    (found,) = lay_beside(published(row), assessment(), surveys)
    assert found.adaptive.endswith("(adaptive pgd-4, n = 12)")


def test_the_nearest_bound() -> None:
    sweep = swept(FGSM(), ("oblivious",), (0.001, 0.004, 0.008, 0.02))
    rates = {t.eps: sweep.row("none", t).accuracy.value for t in sweep.threats}
    row = {"figure": "c", "value": 0.9, "measure": "accuracy"}
    wanted = rates[0.008]
    told = nearest_bound(published(row, nearest=wanted), [sweep])
    assert told is not None
    first = next(eps for eps, value in rates.items() if value == wanted)
    assert f"L∞ ≤ {first:g}:" in told
    assert "of 20 images" in told
    assert nearest_bound(published(row), [sweep]) is None
    assert nearest_bound(published(row, nearest=0.5), []) is None


@pytest.mark.parametrize(
    ("figure", "named"),
    [
        ({"measure": "accuracy", "which": "attacked"}, "eps"),
        ({"measure": "accuracy", "which": "attacked", "eps": 0.5}, "condition"),
        ({"measure": "recall", "label": "grey"}, "label: one of dark, bright"),
        ({"measure": "psnr"}, "changed images"),
    ],
)
def test_what_cannot_be_found_is_named(figure: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        lay_beside(published({"figure": "x", "value": 1, **figure}), assessment())
    assert plan().bounds
