"""The leaderboard says what the cards say, and ranks by the worst that an attacker reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jernih.leaderboard import HEAD, leaderboard, read_cards, write_leaderboard
from jernih.storage import write_json
from jernih.validate import InputError

ROOT = Path(__file__).parents[1]
FOLDERS = [ROOT / "weights", ROOT / "src" / "jernih" / "shipped"]


def figure(images: str, threat: str, accuracy: float, **more: Any) -> dict[str, Any]:
    rate = {"n": 50, "accuracy": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.05}
    return {"images": images, "threat": threat, **rate, **more}


def card(name: str, *figures: dict[str, Any], source: str = "folder") -> dict[str, Any]:
    return {
        "name": name,
        "what": "purifier",
        "parameters": 1234,
        "command": f"jernih run {name}.yaml",
        "config": {
            "sample": {"source": {"name": source}},
            "model": {"classifier": {"name": "resnet18"}},
        },
        "figures": list(figures),
    }


CLEAN = figure("clean", "no attack", 0.9)
STRONG = card(
    "strong",
    CLEAN,
    figure("restored", "oblivious fgsm, L∞ ≤ 0.01", 0.5, accuracy_8bit=0.48, psnr=36.04),
    figure("restored", "oblivious fgsm, L∞ ≤ 0.03", 0.4),
    figure("restored", "adaptive apgd-50, L∞ ≤ 0.01", 0.3),
)
OBLIVIOUS = card("oblivious", CLEAN, figure("restored", "oblivious fgsm, L∞ ≤ 0.01", 0.8))
WEAK = card("weak", CLEAN, figure("restored", "adaptive apgd-50, L∞ ≤ 0.01", 0.2))


def test_ranks_by_the_worst_adaptive_figure() -> None:
    lines = leaderboard([OBLIVIOUS, WEAK, STRONG]).splitlines()
    table = [line for line in lines if line.startswith(("| 1 |", "| 2 |", "| 3 |"))]
    assert [line.split("[")[1].split("]")[0] for line in table] == ["strong", "weak", "oblivious"]
    assert "40.0 [30.0, 45.0] (oblivious fgsm, L∞ ≤ 0.03, n = 50)" in table[0]
    assert "30.0 [20.0, 35.0] (adaptive apgd-50, L∞ ≤ 0.01, n = 50)" in table[0]
    assert table[2].endswith("| – |")


def test_every_figure_is_told() -> None:
    page = leaderboard([STRONG])
    assert "| restored | oblivious fgsm, L∞ ≤ 0.01 | 50 | 50.0 [40.0, 55.0] | 48.0 | 36.0 |" in page
    assert page.count("| restored |") == 3
    assert "`jernih run strong.yaml`, 1,234 parameters." in page


def test_balanced_accuracy_where_there_are_few_classes() -> None:
    ends = {"balanced_accuracy": 0.7, "balanced_low": 0.6, "balanced_high": 0.8}
    page = leaderboard([card("few", figure("clean", "no attack", 0.9, **ends), CLEAN)])
    assert "| n | accuracy | balanced accuracy | after 8-bit rounding |" in page
    assert "| 50 | 90.0 [80.0, 95.0] | 70.0 [60.0, 80.0] | – | – |" in page
    assert "| 50 | 90.0 [80.0, 95.0] | – | – | – |" in page
    many = leaderboard([card("many", figure("clean", "no attack", 0.9, balanced_accuracy=0.7))])
    assert "balanced accuracy" not in many


def test_detectors_stand_side_by_side() -> None:
    attacked = {"images": "attacked", "threat": "oblivious pgd-10, L∞ ≤ 0.03", "n": 40}
    ends = {"flagged": 0.1, "flagged_low": 0.05, "flagged_high": 0.2, "nominal_fpr": 0.05}
    area = {"auroc": 0.987, "auroc_low": 0.97, "auroc_high": 0.995}
    harmless = {"images": "blur, sigma 0.5", "threat": "no attack", "n": 40}
    rows = [
        {"detector": "error", **attacked, **ends, **area},
        {
            "detector": "change",
            **attacked,
            **ends,
            "auroc": 0.5,
            "auroc_low": None,
            "auroc_high": None,
        },
        {"detector": "error", **harmless, **ends},
    ]
    page = leaderboard([{**STRONG, "detection": rows}])
    assert "thresholds set for 5 %" in page
    assert "| images | n | error | change |" in page
    assert "| oblivious pgd-10, L∞ ≤ 0.03 | 40 | 0.987 [0.970, 0.995] | 0.500 |" in page
    assert "| blur, sigma 0.5 | 40 | 10.0 % [5.0, 20.0] | – |" in page
    assert "Detectors:" not in leaderboard([STRONG])


def test_another_data_set_is_another_table() -> None:
    page = leaderboard([STRONG, card("other", CLEAN, source="dicom")])
    assert page.index("## resnet18, dicom") < page.index("## resnet18, folder")
    assert page.startswith(HEAD)


def test_reads_cards_of_purifiers_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", STRONG)
    write_json(tmp_path / "b.json", {**WEAK, "what": "classifier"})
    assert [found["name"] for found in read_cards([tmp_path])] == ["strong"]
    write_leaderboard([tmp_path], tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == leaderboard([STRONG])
    with pytest.raises(InputError, match="a card of a purifier"):
        read_cards([tmp_path / "nowhere"])


def test_the_page_in_the_docs_is_up_to_date() -> None:
    page = (ROOT / "docs" / "leaderboard.md").read_text(encoding="utf-8")
    assert page == leaderboard(read_cards(FOLDERS)), "run: " + (
        "jernih leaderboard weights src/jernih/shipped --out docs/leaderboard.md"
    )
