"""The READMEs say what the cards say, in both languages, and show what was computed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jernih.shipped import shipped_card
from jernih.storage import sha256_file
from tests.docs.pages import ROOT, blocks

READMES = (ROOT / "README.md", ROOT / "README.id.md")
PICTURE = ROOT / "docs" / "assets" / "restored.png"
COLUMNS = ("jernih-s-imagenet", "jernih-s-chest-xray", "jernih-r-chest-xray")
ROWS = [
    ("clean", "no attack"),
    ("clean through purifier", "no attack"),
    ("attacked", "oblivious fgsm, L∞ ≤ 0.01"),
    ("restored", "oblivious fgsm, L∞ ≤ 0.01"),
    ("restored", "oblivious fgsm of predicted labels, L∞ ≤ 0.01"),
    ("restored", "oblivious pgd-10, L∞ ≤ 0.01"),
    ("restored", "oblivious mi-fgsm-10, L∞ ≤ 0.03"),
    ("restored", "adaptive fgsm, L∞ ≤ 0.01"),
    ("restored", "adaptive apgd-50|20|-, L∞ ≤ 0.002"),
    ("restored", "adaptive apgd-50|20|100, L∞ ≤ 0.01"),
    ("restored", "adaptive apgd--|-|100, L∞ ≤ 0.03"),
]
"""What the table shows; where the columns differ in steps, those of each, "-" where none are."""
WORDS = {
    "README.md": {"clean": "clean", "attacked": "attacked", "restored": "restored"},
    "README.id.md": {"clean": "bersih", "attacked": "diserang", "restored": "dipulihkan"},
}
PREDICTED = {"README.md": "of predicted labels", "README.id.md": "atas label prediksi"}


def table(readme: Path) -> list[list[str]]:
    """The cells of the results, without the head."""
    text = readme.read_text(encoding="utf-8")
    (found,) = re.findall(r"^\|.*\|\n\|-\|-\|-\|-\|-\|\n((?:\|.*\|\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines()]


def threat_in(threat: str, column: int) -> str:
    """The threat model as the card of a column names it."""
    return re.sub(r"(\d+|-)\|(\d+|-)\|(\d+|-)", lambda steps: steps[column + 1], threat)


def measured(card: dict[str, Any], images: str, threat: str) -> str:
    """A card's figure as the table writes it."""
    if "--," in threat:
        return "–"
    (row,) = [r for r in card["figures"] if (r["images"], r["threat"]) == (images, threat)]
    assert row["level"] == 0.95
    share, low, high = (100 * row[name] for name in ("accuracy", "low", "high"))
    return f"{share:.1f} [{low:.1f}, {high:.1f}], n = {row['n']}"


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_the_results_are_those_of_the_cards(readme: Path) -> None:
    cards = [shipped_card(name) for name in COLUMNS]
    rows = table(readme)
    assert len(rows) == len(ROWS)
    for cells, (images, threat) in zip(rows, ROWS, strict=True):
        expected = [
            measured(card, images, threat_in(threat, column)) for column, card in enumerate(cards)
        ]
        assert cells[2:] == expected, (images, threat)
        assert cells[0].startswith(WORDS[readme.name][images.split()[0]])
        if threat == "no attack":
            continue
        told = cells[1].replace("*", "").lower()
        knowledge, attack, *labels = threat.partition(",")[0].split()
        assert bool(labels) == (PREDICTED[readme.name] in told), cells
        name, *steps = re.split(r"-(?=[\d-])|\|", attack)
        assert told.startswith(f"{knowledge} {name}"), cells
        assert told.endswith(threat.partition(", ")[2].lower()), cells
        found = re.findall(r"\d+", told.partition(name)[2].partition("l∞")[0])
        assert found == [count for count in steps if count.strip("-")], cells


def test_adaptive_attackers_are_in_the_table() -> None:
    """No README shows what holds without what does not."""
    for readme in READMES:
        told = [cells[1] for cells in table(readme)]
        assert sum("**adaptive**" in cell for cell in told) >= 3


def test_both_languages_say_the_same_line_by_line() -> None:
    english, indonesian = (path.read_text(encoding="utf-8").splitlines() for path in READMES)
    assert len(english) == len(indonesian)
    for number, pair in enumerate(zip(english, indonesian, strict=True), 1):
        kinds = [re.match(r"#+|\||```\w*|- |!\[|$", line) for line in pair]
        starts = [kind and kind[0] for kind in kinds]
        assert starts[0] == starts[1], f"line {number}: {pair}"
    # Comments are translated, code is not.
    code = [[re.sub(r"\s*#.*", "", block.text) for block in blocks(path)] for path in READMES]
    assert code[0] == code[1]
    links = [
        re.findall(r"\]\(((?!#)[^)]+)\)", path.read_text(encoding="utf-8")) for path in READMES
    ]
    assert links[0][1:] == links[1][1:]


def test_the_picture_is_the_one_that_was_computed() -> None:
    record = json.loads(PICTURE.with_suffix(".json").read_text(encoding="utf-8"))
    assert sha256_file(PICTURE) == record["sha256"], "run docs/tools/picture.py"
    assert PICTURE.stat().st_size <= 300_000
    with Image.open(PICTURE) as picture:
        assert picture.width > 800
    assert record["threat"] == "oblivious fgsm, L∞ ≤ 0.01"
    assert record["n"] == len(record["images"]) == 2
    for shown in record["images"]:
        true = shown["file"].partition("/")[0]
        likeliest = [max(shown[what], key=shown[what].get) for what in ("clean", "attacked")]
        assert likeliest[0] == true, "the rule asks for an image that is right when clean"
        assert likeliest[1] != true, "the text says that the attack succeeds"
        assert max(shown["restored"], key=shown["restored"].get) == true, "the text says so"
        assert shown["largest_change"] == pytest.approx(3 / 255, abs=1e-5), "the caption says so"
    for readme in READMES:
        text = readme.read_text(encoding="utf-8")
        assert "(docs/assets/restored.png)" in text
        assert "(3/255)" in text
        assert "n = 2" in text
        assert "Kermany" in text
        assert "https://creativecommons.org/licenses/by/4.0/" in text


def test_pictures_of_the_docs_are_small_and_described() -> None:
    for picture in (ROOT / "docs" / "assets").glob("*.png"):
        assert picture.stat().st_size <= (300_000 if picture == PICTURE else 150_000), picture
    pages = [*READMES, *(ROOT / "docs").rglob("*.md")]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    shown = [found for text in texts for found in re.findall(r"!\[(.*?)\]\((\S+?)\)", text)]
    assert shown
    assert all(len(words) > 40 for words, _ in shown), "describe it to who cannot see it"
    named = {Path(address).name for _, address in shown}
    kept = {picture.name for picture in (ROOT / "docs" / "assets").glob("*.png")}
    assert kept == named, "pictures that no page shows, or the other way round"
