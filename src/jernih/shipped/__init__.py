"""Trained purifiers that come with the package: here, a float16 file and its card for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jernih.storage import read_json
from jernih.validate import check_choice

FOLDER = Path(__file__).parent
DEFAULT = "jernih-s-imagenet"
"""What restores images of which nothing more is known."""


def shipped_names() -> list[str]:
    """Names of the purifiers that come with the package."""
    return sorted(file.stem for file in FOLDER.glob("*.safetensors"))


def shipped_weights(name: str = DEFAULT) -> Path:
    """The weights of a purifier that comes with the package.

    Raises:
        InputError: for an unknown name, with the nearest known.

    Example:
        >>> from jernih.purifiers import restore_purifier
        >>> purifier = restore_purifier(shipped_weights())
        >>> purifier.name
        'jernih-s'
    """
    check_choice("name", name, shipped_names())
    return FOLDER / f"{name}.safetensors"


def shipped_card(name: str = DEFAULT) -> dict[str, Any]:
    """The card of a purifier that comes with the package: data, command, figures.

    Raises:
        InputError: for an unknown name, with the nearest known.
    """
    card: dict[str, Any] = read_json(shipped_weights(name).with_suffix(".json"))
    return card
