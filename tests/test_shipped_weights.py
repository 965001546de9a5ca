"""The weights that the project ships are what their cards say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from jernih.classifiers import restore_classifier
from jernih.data.images import read_image
from jernih.data.modify import Prepare
from jernih.purifiers import restore_purifier
from jernih.storage import read_json, sha256_file

WEIGHTS = Path(__file__).parents[1] / "weights"
CARDS = sorted(WEIGHTS.glob("*.json"))
MOST_BYTES = 60_000_000


def test_every_file_has_its_card_and_all_are_small_enough() -> None:
    files = sorted(WEIGHTS.glob("*.safetensors"))
    assert [file.stem for file in files] == [card.stem for card in CARDS]
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES


@pytest.mark.parametrize("path", CARDS, ids=lambda p: p.stem)
def test_card(path: Path) -> None:
    card = read_json(path)
    file = WEIGHTS / card["file"]
    assert sha256_file(file) == card["sha256"]
    restore: Any = restore_classifier if card["what"] == "classifier" else restore_purifier
    module = restore(file)
    assert sum(p.numel() for p in module.parameters()) == card["parameters"]
    assert all(bool(p.isfinite().all()) for p in module.parameters())
    assert {"data", "seed", "config", "command", "history", "figures"} <= set(card)
    assert card["figures"]
    for figure in card["figures"]:
        assert figure["threat"]
        assert figure["n"] > 0
        assert figure["low"] <= figure["accuracy"] <= figure["high"]


@pytest.mark.slow
@torch.no_grad()
def test_study_b_classifies_as_its_card_says(shared: Path) -> None:
    classifier = restore_classifier(WEIGHTS / "study-b-xception.safetensors").frozen()
    card = read_json(WEIGHTS / "study-b-xception.json")
    clean = next(f for f in card["figures"] if f["images"] == "clean")
    prepare, right, n = Prepare(224, "stretch"), 0, 0
    for label, name in enumerate(classifier.classes):
        files = sorted((shared / "data/chest-xray/test" / name).iterdir())
        for start in range(0, len(files), 32):
            images = torch.stack([prepare(read_image(f)) for f in files[start : start + 32]])
            right += int((classifier(images).argmax(1) == label).sum())
            n += len(images)
    assert n == clean["n"] == 624
    assert abs(right / n - clean["accuracy"]) <= 1.5 / n
