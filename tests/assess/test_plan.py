from __future__ import annotations

from typing import Any

import pytest

from jernih.assess import AssessmentPlan
from jernih.attacks import FGSM
from jernih.validate import InputError


def test_bounds_are_sorted_distinct_numbers_from_fractions_and_decimals() -> None:
    made = AssessmentPlan(FGSM(), ["8/255", 0.01, "8/255"])
    assert made.bounds == (0.01, 8 / 255)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epsilons": ()}, "epsilons"),
        ({"epsilons": "8/255"}, "epsilons"),
        ({"epsilons": (0.0, 0.1)}, "epsilons"),
        ({"epsilons": ("eight",)}, "epsilons"),
        ({"knowledge": ()}, "knowledge"),
        ({"knowledge": ("obvious",)}, "oblivious"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"level": 1.0}, "level"),
        ({"attack": FGSM(targeted=True)}, "targeted"),
        ({"attack": "fgsm"}, "attack"),
    ],
)
def test_a_bad_plan_is_refused_in_one_line(changes: dict[str, Any], named: str) -> None:
    options: dict[str, Any] = {"attack": FGSM(), "epsilons": (0.1,), **changes}
    with pytest.raises(InputError, match=named) as caught:
        AssessmentPlan(**options)
    assert "\n" not in str(caught.value)


def test_fingerprint_depends_on_everything_but_the_attacks_own_bound() -> None:
    plain = AssessmentPlan(FGSM(eps=0.1), (0.1,))
    assert plain.fingerprint() == AssessmentPlan(FGSM(eps=0.2), (0.1,)).fingerprint()
    others = [
        AssessmentPlan(FGSM(), (0.2,)),
        AssessmentPlan(FGSM(), (0.1,), ("adaptive",)),
        AssessmentPlan(FGSM(), (0.1,), batch_size=2),
        AssessmentPlan(FGSM(), (0.1,), level=0.9),
        AssessmentPlan(FGSM(), (0.1,), seed=1),
    ]
    assert len({plain.fingerprint(), *(other.fingerprint() for other in others)}) == 6
