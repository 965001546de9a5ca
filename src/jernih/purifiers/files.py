"""A trained purifier as one safetensors file with its card in the header."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jernih.purifiers.base import PURIFIERS, Purifier
from jernih.randomness import seeded
from jernih.shipped import DEFAULT, shipped_names, shipped_weights
from jernih.validate import InputError
from jernih.weights import load_into, read_card, read_weights, write_weights


def save_purifier(purifier: Purifier, path: str | os.PathLike[str]) -> Path:
    """Write a purifier's weights, name and options to one safetensors file."""
    return write_weights(path, purifier, purifier.describe())


def purifier_file(path: str | os.PathLike[str]) -> Path:
    """The file of weights that come with the package, by their name; another path as it is."""
    return shipped_weights(str(path)) if str(path) in shipped_names() else Path(path).expanduser()


def restore_purifier(path: str | os.PathLike[str], **options: Any) -> Purifier:
    """Load a purifier that :func:`save_purifier` wrote, in evaluation mode.

    Args:
        path: the file, or the name of weights that come with the package
            (:func:`jernih.shipped.shipped_names`).
        options: options instead of those that the purifier was trained with, such as the
            ``strength`` of ``jernih-s``.

    Raises:
        InputError: when the file is absent, damaged, or holds no purifier, and for options that
            the purifier does not have or the weights do not fit.
    """
    path = purifier_file(path)
    state = read_weights(path)
    card = read_card(path)
    if "name" not in card or "classes" in card:
        raise InputError(f"weights {path}", "a file that save_purifier wrote", "another")
    name = card.pop("name")
    with seeded(0, "restore"):  # initial weights are drawn and then replaced
        purifier = PURIFIERS.create(name, **{**card, **options})
    load_into(purifier, state, source=str(path))
    return purifier.eval()


def find_purifier(
    weights: str | os.PathLike[str] | None = None,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Purifier:
    """A purifier by its weights, or by its name where it learns nothing; in evaluation mode.

    Without either it is the default of the trained ones that come with the package.

    Args:
        weights: a file that :func:`save_purifier` wrote, or the name of weights that come with the
            package.
        name: the name of a purifier that learns nothing.
        options: options of the purifier; beside weights, instead of those that it was trained
            with, such as the ``strength`` of ``jernih-s``.

    Raises:
        InputError: for both weights and name, options that the purifier does not have or the
            weights do not fit, and a purifier that has to learn without weights.
    """
    if weights is not None and name is not None:
        raise InputError("purifier", "either weights or a name", "both")
    if name is None and weights is None:
        weights = DEFAULT
    if weights is not None:
        return restore_purifier(weights, **(options or {}))
    with seeded(0, "find"):  # one that learns draws its weights before it is refused
        purifier = PURIFIERS.create(str(name), **(options or {}))
    if purifier.learns != "nothing":
        raise InputError("purifier", f"weights for {name!r}, which learns", "none")
    return purifier.eval()
