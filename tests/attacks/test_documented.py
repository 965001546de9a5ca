"""docs/attacks.md names every attack, with what its class says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jernih.attacks import ATTACKS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in PAGE.splitlines()
    if line.startswith("| `") and (cells := [cell.strip() for cell in line.strip("| ").split("|")])
}


@pytest.mark.parametrize("name", ATTACKS.names())
def test_every_attack_has_its_row(name: str) -> None:
    attack = ATTACKS.get(name)
    norms, needs, when, cost = ROWS[name]
    assert norms == ", ".join(attack.norms)
    assert needs == attack.needs
    assert when
    assert cost


def test_the_page_is_linked() -> None:
    assert "(docs/attacks.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(attacks.md)" in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
