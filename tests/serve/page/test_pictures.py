"""Pictures and words of the page."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from jernih.answer import Answer
from jernih.serve.page.pictures import difference, gauge, overlay, pixels, verdict

GREY = torch.full((3, 4, 5), 0.5)
ANSWER = Answer(
    label="cat",
    index=0,
    probabilities={"cat": 0.75, "dog": 0.25},
    suspicion=0.1,
    threshold=1.0,
    flagged=False,
    action="restored",
    seen=GREY,
    restored=GREY,
)


def test_pixels_and_differences() -> None:
    assert pixels(GREY).shape == (4, 5, 3)
    assert (pixels(torch.ones(3, 1, 1)) == 255).all()
    moved = GREY.clone()
    moved[0, 1, 2] += 0.02
    shown = difference(GREY, moved, 10)
    assert shown[1, 2].tolist() == [178, 128, 128]
    assert (np.delete(shown.reshape(-1, 3), 7, axis=0) == 128).all()


def test_overlay_shows_the_image_where_nothing_mattered() -> None:
    areas = torch.zeros(4, 5)
    areas[0, 0] = 1
    shown = overlay(GREY, areas)
    assert (shown.reshape(-1, 3)[1:] == 128).all()
    assert shown[0, 0].tolist() != [128, 128, 128]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "cat, 75.0 % sure: restored, then classified; not suspicious."),
        (
            {"flagged": True, "action": "rejected"},
            "Rejected as suspicious; it would have been called cat, 75.0 % sure.",
        ),
        (
            {"flagged": None, "action": "as it came"},
            "cat, 75.0 % sure: classified as it came; no detector asked.",
        ),
    ],
)
def test_verdict(changes: dict[str, object], words: str) -> None:
    assert verdict(dataclasses.replace(ANSWER, **changes)) == words  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("score", "threshold", "flagged", "width", "words"),
    [
        (0.1, 1.0, False, "25.0%", "not suspicious, 0.1 times the threshold"),
        (1e6, 1.0, True, "100.0%", "suspicious, 1e+06 times the threshold"),
        (-1.0, 0.5, False, "12.5%", "not suspicious, 1.5 below the threshold"),
        (1.0, -0.5, True, "87.5%", "suspicious, 1.5 above the threshold"),
    ],
)
def test_gauge(score: float, threshold: float, flagged: bool, width: str, words: str) -> None:
    answer = dataclasses.replace(ANSWER, suspicion=score, threshold=threshold, flagged=flagged)
    shown = gauge(answer)
    assert f"width:{width}" in shown
    assert f'aria-label="Suspicion: {words}"' in shown


def test_gauge_without_a_detector_or_threshold() -> None:
    assert "no detector" in gauge(dataclasses.replace(ANSWER, suspicion=None))
    assert "no threshold" in gauge(dataclasses.replace(ANSWER, threshold=None))
