"""Names, options and their errors."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from jernih.registry import Configured, Registry
from jernih.validate import InputError

SHAPES: Registry[Any] = Registry("shape")


@SHAPES.register("disc")
class Disc(Configured):
    def __init__(self, radius: float, colour: str = "red", *, parent: object = None) -> None:
        self.radius = radius


def test_create_and_describe() -> None:
    disc = SHAPES.create("disc", radius=2.0)
    assert disc.radius == 2.0
    assert disc.describe() == {"name": "disc", "radius": 2.0, "colour": "red", "parent": None}
    assert Disc(1.0, parent=object()).describe() == {"name": "disc", "radius": 1.0, "colour": "red"}
    assert copy.deepcopy(disc).describe() == disc.describe()


def test_errors_name_what_is_known() -> None:
    with pytest.raises(InputError, match=r"expected one of 'disc'; got 'disk' \(nearest: 'disc'\)"):
        SHAPES.create("disk")
    with pytest.raises(InputError, match=r"option of shape 'disc'.*nearest: 'colour'"):
        SHAPES.create("disc", radius=1, color="blue")
    with pytest.raises(InputError, match="the option 'radius'; got none"):
        SHAPES.create("disc")


def test_a_name_is_taken_once() -> None:
    with pytest.raises(InputError, match="not yet registered"):
        SHAPES.register("disc")(Disc)
    assert "disc" in SHAPES
    assert list(SHAPES) == ["disc"]
