"""A trained purifier as one safetensors file with its card in the header."""

from __future__ import annotations

import os
from pathlib import Path

from jernih.purifiers.base import PURIFIERS, Purifier
from jernih.randomness import seeded
from jernih.validate import InputError
from jernih.weights import load_into, read_card, read_weights, write_weights


def save_purifier(purifier: Purifier, path: str | os.PathLike[str]) -> Path:
    """Write a purifier's weights, name and options to one safetensors file."""
    return write_weights(path, purifier, purifier.describe())


def restore_purifier(path: str | os.PathLike[str]) -> Purifier:
    """Load a purifier that :func:`save_purifier` wrote, in evaluation mode.

    Raises:
        InputError: when the file is absent, damaged, or holds no purifier.
    """
    state = read_weights(path)
    card = read_card(path)
    if "name" not in card or "classes" in card:
        raise InputError(f"weights {path}", "a file that save_purifier wrote", "another")
    name = card.pop("name")
    with seeded(0, "restore"):  # initial weights are drawn and then replaced
        purifier = PURIFIERS.create(name, **card)
    load_into(purifier, state, source=str(path))
    return purifier.eval()
