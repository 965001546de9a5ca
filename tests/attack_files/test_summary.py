from __future__ import annotations

import pytest
from scipy.stats import binomtest

from jernih.attack_files import Row, lines
from jernih.attack_files.summary import results
from jernih.attacks import FGSM, PGD, Attack, DeepFool


def rows(*outcomes: str, past: float = 0.0) -> list[Row]:
    """Rows of class a: predictions before, after, written, such as ``"abb"``."""
    return [
        Row(
            path=f"{n}.png",
            source=f"{n}.jpg",
            label="a",
            target="",
            before=before,
            after=after,
            written=written,
            success=after != "a",
            success_written=written != "a",
            distance=0.01 * (n + 1),
            distance_written=8 / 255 + past,
            linf_written=8 / 255 + past,
            sha256="",
        )
        for n, (before, after, written) in enumerate(map(tuple, outcomes))
    ]


def told(*outcomes: str, past: float = 0.0, attack: Attack | None = None) -> dict[str, object]:
    made = rows(*outcomes, past=past)
    return results(made, {}, attack or FGSM("8/255"), 2, "png")


def test_counts_and_intervals() -> None:
    found = results(
        rows("abb", "abb", "aba", "aab", "aaa", "bbb"), {"x": "cut"}, FGSM("8/255"), 2, "png"
    )
    assert found["counts"] == {
        "images": 6,
        "unreadable": 1,
        "right_before": 5,
        "fooled": 3,
        "fooled_written": 3,
        "survived": 2,
        "fooled_by_writing_alone": 1,
    }
    shares = {name: (s["successes"], s["n"]) for name, s in found["rates"].items()}
    assert shares == {
        "right_before": (5, 6),
        "right_after": (2, 6),
        "right_written": (2, 6),
        "fooled": (3, 5),
        "fooled_written": (3, 5),
        "survived": (2, 3),
    }
    interval = binomtest(2, 3).proportion_ci(method="wilson")
    assert found["rates"]["survived"]["low"] == pytest.approx(interval.low)
    assert found["rates"]["survived"]["high"] == pytest.approx(interval.high)
    assert found["median_distance_fooled"] == pytest.approx(0.02)
    words = "\n".join(lines(found))
    assert "6 images, fgsm (oblivious, linf, eps 0.0313725); right when clean: 5 of 6" in words
    assert "of these fooled as 8-bit PNG: 3 of 5 (60.0 %, 95 % interval 23.1–88.2)" in words
    assert "successes that survived writing: 2 of 3" in words
    assert "1 more fooled by rounding alone" in words
    assert "; within the bound" in words
    assert "unreadable and left out: 1" in words


def test_past_the_bound() -> None:
    words = lines(told("abb", "abb", past=0.5 / 255))
    assert "largest L∞ distance 0.03333 (8.50 grey levels)" in words[-1]
    assert "; 0.00196 (0.50 grey levels) past the bound, on 2 images" in words[-1]
    words = lines(told("abb", attack=PGD(norm="l2", eps=0.02)))
    assert ", l2 distance 0.03137; 0.011 past the bound, on 1 images" in words[-1]


def test_without_a_bound() -> None:
    for norm in ("l2", "linf"):
        words = lines(told("abb", attack=DeepFool(norm=norm)))
        assert f"1 images, deepfool (oblivious, {norm}, no bound)" in words[0]
        assert "the bound" not in words[-1]


def test_warnings() -> None:
    assert told("abb", "abb")["warnings"] == []
    assert "undone by writing" in str(told("abb", "aba")["warnings"])
    assert "no better than guessing" in str(told("abb", "bbb")["warnings"])
    assert "half a grey level" in str(told("abb", attack=FGSM("1/1000"))["warnings"])
