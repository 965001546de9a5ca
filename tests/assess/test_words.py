from __future__ import annotations

import numpy as np
import pytest

from jernih.assess.statistics import rate
from jernih.assess.words import (
    format_eps,
    format_interval,
    format_number,
    format_p,
    format_rate,
    format_threat,
    verdict,
)
from jernih.types import Threat
from tests.assess.examples import assessment, made_to_order
from tests.assess.test_checks import SOUND, both


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (8 / 255, "8/255"),
        (0.5 / 255, "0.001961"),
        (0.03, "0.03"),
        (1.0, "1"),
        (0.001, "0.001"),
    ],
)
def test_bounds_are_written_as_people_write_them(eps: float, text: str) -> None:
    assert format_eps(eps) == text


def test_numbers_carry_their_intervals() -> None:
    assert format_rate(rate(np.arange(10) < 9)) == "90.0 % [59.6, 98.2]"
    assert (
        format_rate(None) == format_interval(None) == format_number(None) == format_p(None) == "–"
    )
    assert format_p(0.0004) == "< 0.001"
    assert format_threat(Threat("l2", 0.5, "adaptive"), "x") == "adaptive x, L2 ≤ 0.5"
    informed = Threat("linf", 0.1, "adaptive", detector_aware=True)
    assert format_threat(informed, "x") == "adaptive, detector-aware x, L∞ ≤ 0.1"
    assert str(informed) == "adaptive, detector-aware, linf, eps 0.1"
    assert format_threat(None, "x") == "no attack"


def test_the_verdict_names_threat_count_and_interval_in_every_sentence() -> None:
    found = verdict(assessment())
    assert len(found) == 3
    assert all("20 images" in sentence and "[" in sentence for sentence in found)
    assert "oblivious fgsm, L∞ ≤ 4/255" in found[1]
    assert "adaptive fgsm, L∞ ≤ 4/255" in found[2]


@pytest.mark.parametrize(
    ("attacked", "restored", "words"),
    [
        ((0.5, 0.2), (0.8, 0.7), "wins back 50.0 of the 75.0 points that the attack took (67 %)"),
        ((0.5, 0.2), (0.2, 0.1), "makes matters worse by 10.0 points"),
        ((0.5, 0.2), (0.2, 0.21), "do not differ measurably"),
        ((0.95, 0.95), (0.95, 0.95), "breaks nothing"),
    ],
)
def test_the_verdict_says_what_the_numbers_say(
    attacked: tuple[float, float], restored: tuple[float, float], words: str
) -> None:
    found = made_to_order(
        {
            **SOUND,
            "attacked": both(attacked, (0.6, 0.4)),
            "restored": both(restored, (0.75, 0.65)),
        }
    )
    assert words in verdict(found)[1]
