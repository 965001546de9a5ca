"""No public name disappears or changes unnoticed."""

from __future__ import annotations

import dataclasses

from jernih.storage import read_json
from tests.house.api import FILE, describe, surface

UPDATE = "if the change is meant: python -m tests.house.api, and a line in the changelog"


def test_the_public_names_are_those_of_the_snapshot() -> None:
    was, now = read_json(FILE), surface()
    changed = [
        f"{package}.{name}: {was.get(package, {}).get(name)} → {now.get(package, {}).get(name)}"
        for package in sorted({*was, *now})
        for name in sorted({*was.get(package, {}), *now.get(package, {})})
        if was.get(package, {}).get(name) != now.get(package, {}).get(name)
    ]
    assert not changed, "\n".join([*changed, UPDATE])


def test_what_a_snapshot_sees() -> None:
    def function(first: int, *, second: float = 0.5, **rest: str) -> None: ...

    @dataclasses.dataclass(frozen=True)
    class Value:
        size: int

        @property
        def twice(self) -> int:
            return 2 * self.size

        def scaled(self, by: int = 1) -> int:
            return by * self.size

        def _hidden(self) -> None: ...

    assert describe(function) == "(first: int, *, second: float = 0.5, **rest: str)"
    assert describe(Value) == {
        "": "class(size: int)",
        "scaled": "(self, by: int = 1)",
        "size": "int",
        "twice": "property",
    }
    assert describe(3) == "int"
