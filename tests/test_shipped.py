"""The purifiers inside the package."""

from __future__ import annotations

import pytest
import torch

from jernih.purifiers import restore_purifier
from jernih.randomness import generator
from jernih.shipped import DEFAULT, FOLDER, shipped_card, shipped_names, shipped_weights
from jernih.storage import sha256_file
from jernih.validate import InputError

MOST_BYTES = 16_000_000


def test_all_have_cards_and_are_small_enough() -> None:
    assert DEFAULT in shipped_names()
    assert sorted(file.stem for file in FOLDER.glob("*.json")) == shipped_names()
    assert sum(file.stat().st_size for file in FOLDER.glob("*.safetensors")) <= MOST_BYTES
    with pytest.raises(InputError, match=f"nearest: '{DEFAULT}'"):
        shipped_weights(DEFAULT[:-1])


@pytest.mark.parametrize("name", shipped_names())
@torch.no_grad()
def test_is_what_its_card_says(name: str) -> None:
    card = shipped_card(name)
    purifier = restore_purifier(name)
    assert purifier.name == card["unit"]["name"]
    assert sum(p.numel() for p in purifier.parameters()) == card["parameters"]
    assert sha256_file(shipped_weights(name)) == card["sha256"]
    images = torch.rand(1, 3, 50, 70, generator=generator("shipped"))
    restored = purifier(images)
    assert restored.shape == images.shape
    assert not torch.equal(restored, images)
    for figure in card["figures"]:
        assert figure["threat"]
        assert figure["n"] > 0
        assert figure["low"] <= figure["accuracy"] <= figure["high"]
