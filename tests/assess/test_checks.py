from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from jernih.assess import Assessment, AssessmentPlan
from jernih.assess.checks import CHECKS, find_warnings
from jernih.assess.observations import Array
from jernih.assess.result import Detection, Finding
from jernih.assess.statistics import rate
from tests.assess.examples import made_to_order, plan
from tests.assess.test_run import Noise

N = 200


def share(*shares: float, n: int = N) -> Array:
    """So large a share of the images, spread over both classes, for each number."""
    order = np.arange(n) * 7 % n
    stacked: Array = np.stack([order < round(n * s) for s in shares])
    return stacked


def both(oblivious: tuple[float, float], adaptive: tuple[float, float], n: int = N) -> Array:
    stacked: Array = np.stack([share(*oblivious, n=n), share(*adaptive, n=n)])
    return stacked


SOUND: dict[str, Array] = {
    "clean": share(0.95)[0],
    "purified": share(0.94)[0],
    "attacked": both((0.5, 0.2), (0.6, 0.4)),
    "restored": both((0.8, 0.7), (0.75, 0.65)),
}


def warnings(changes: dict[str, Array] | None = None, **options: Any) -> dict[str, Finding]:
    """The findings by check; a noise attack of the plan is not known to be a single step."""
    made = options.pop("made", None) or AssessmentPlan(Noise(), ("2/255", "4/255"))
    found = made_to_order({**SOUND, **(changes or {})}, made=made, **options)
    return {finding.check: finding for finding in found.warnings}


def test_a_sound_assessment_has_no_warning() -> None:
    assert warnings() == {}


def lopsided(n: int = N) -> Array:
    labels: Array = (np.arange(n) % 10 == 0).astype(np.int64)
    return labels


ODD = np.arange(N) % 2 == 1


FAULTS: list[tuple[str, str, dict[str, Array], dict[str, Any], str]] = [
    ("weak attack", "serious", {"attacked": both((0.9, 0.85), (0.9, 0.9))}, {}, "hardly"),
    ("weak attack", "serious", {"clean": share(0.0)[0]}, {}, "before any attack"),
    (
        "reliance on ignorance",
        "serious",
        {"restored": both((0.8, 0.7), (0.75, 0.58))},
        {},
        "70.0 %",
    ),
    ("cost on clean images", "caution", {"purified": share(0.9)[0]}, {}, "200 clean images"),
    ("not monotone", "caution", {"attacked": both((0.2, 0.3), (0.6, 0.4))}, {}, "4/255"),
    (
        "8-bit rounding",
        "caution",
        {"attacked_8bit": both((0.5, 0.3), (0.6, 0.4))},
        {},
        "after",
    ),
    (
        "label leak",
        "serious",
        {"clean": share(0.8)[0], "purified": share(0.8)[0], "restored": both((1, 0.7), (0.7, 0.6))},
        {},
        "oblivious noise, L∞ ≤ 2/255: 100.0 %",
    ),
    ("single-step attack", "caution", {}, {"made": plan()}, "single step"),
    (
        "no adaptive attacker",
        "serious",
        {"attacked": share(0.5, 0.2)[None], "restored": share(0.8, 0.7)[None]},
        {"made": AssessmentPlan(Noise(), (0.1, 0.2), ("oblivious",))},
        "does not know",
    ),
    ("majority baseline", "serious", {"clean": share(0.5)[0]}, {}, "Always answering"),
    ("majority baseline", "serious", {"clean": share(0.85)[0]}, {"labels": lopsided()}, "90.0"),
    (
        "majority baseline",
        "caution",
        {"restored": both((0.8, 0.7), (0.75, 0.45))},
        {},
        "adaptive noise, L∞ ≤ 4/255",
    ),
    (
        "collapse into one class",
        "caution",
        {"attacked": np.stack([np.stack([share(0.5)[0], ODD]), both((0.6, 0.4), (0, 0))[0]])},
        {},
        "“bright” on 100.0 %",
    ),
    (
        "random model",
        "serious",
        {},
        {"probe": np.array([[16, 3, 0, 0, 0, 0], [16, 16, 0, 0, 0, 0]])},
        "the classifier, on 3 of 16 images; the defended model, on 16 of 16 images",
    ),
    (
        "zero gradient",
        "serious",
        {},
        {"probe": np.array([[16, 0, 0, 0, 0, 0], [16, 0, 16, 0, 0, 0]])},
        "16 of 16 clean images (defended model)",
    ),
    (
        "zero gradient",
        "serious",
        {},
        {"probe": np.array([[16, 0, 9, 9, 0, 0], [16, 0, 0, 0, 0, 0]])},
        "rounded to zero",
    ),
    (
        "out of range",
        "caution",
        {},
        {"probe": np.array([[16, 0, 0, 0, 0, 0], [16, 0, 0, 0, 2, 0]])},
        "gives 2 back",
    ),
    (
        "softmax outputs",
        "serious",
        {},
        {"clean_softmax": np.ones(N, dtype=bool)},
        "probabilities",
    ),
]
"""Check, severity, what differs from a sound assessment, further options, words of the finding."""


@pytest.mark.parametrize(("check", "severity", "changes", "options", "words"), FAULTS)
def test_each_check_finds_its_fault(
    check: str, severity: str, changes: dict[str, Array], options: dict[str, Any], words: str
) -> None:
    found = warnings(changes, **options)
    assert found[check].severity == severity
    assert words in found[check].text


def test_few_images_are_remarked_on() -> None:
    n = 40
    few = {
        "clean": share(0.95, n=n)[0],
        "purified": share(0.95, n=n)[0],
        "attacked": both((0.5, 0.2), (0.6, 0.4), n=n),
        "restored": both((0.8, 0.7), (0.75, 0.65), n=n),
    }
    assert "only 40 images" in warnings(few)["few images"].text


def with_false_positives(found: Assessment, flagged: int) -> Assessment:
    detection = Detection("d", 1.0, 0.05, 100, rate(np.arange(N) < flagged), ())
    return dataclasses.replace(found, detection=detection)


@pytest.mark.parametrize(("flagged", "fires"), [(30, True), (12, False), (0, False)])
def test_false_positives_beyond_the_nominal_rate(flagged: int, fires: bool) -> None:
    found = find_warnings(with_false_positives(made_to_order(SOUND), flagged))
    assert ("false positives" in {finding.check for finding in found}) is fires


def test_serious_findings_come_first() -> None:
    found = made_to_order({**SOUND, "clean": share(0.4)[0], "purified": share(0.3)[0]})
    order = [finding.severity for finding in found.warnings]
    assert order == sorted(order, key=["serious", "caution", "note"].index)
    assert len(set(order)) == 2


def test_a_random_model_is_no_fault_once_averaged_and_few_dead_images_are_none() -> None:
    probe = np.array([[16, 16, -1, -1, 0, 1], [16, 0, 1, 0, 0, 0]])
    assert warnings(probe=probe) == {}


def test_every_check_is_tried_above() -> None:
    tried = {fault[0] for fault in FAULTS} | {"few images", "false positives"}
    assert tried == {*CHECKS, "not monotone"}
