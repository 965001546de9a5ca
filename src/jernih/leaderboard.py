"""Purifiers beside each other, as their cards tell: the page ``docs/leaderboard.md``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jernih.storage import read_json, write_text
from jernih.validate import InputError

HEAD = """# Leaderboard

Made by `jernih leaderboard` from the cards beside the weights; each figure is what the card's
command measured. Accuracies are in per cent, with their 95 % intervals. An *oblivious* attacker
sees only the classifier, an *adaptive* one the purifier too; "worst" is the lowest accuracy that
any of the attacks named below reached. Ranked by the worst adaptive figure, then by the worst
oblivious one: compare rows only where their attacks are the same.
"""


def read_cards(folders: Iterable[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """The cards of purifiers in some folders, by name.

    Raises:
        InputError: when there is no card of a purifier.
    """
    files = sorted(file for folder in folders for file in Path(folder).glob("*.json"))
    cards = [card for file in files if (card := read_json(file)).get("what") == "purifier"]
    if not cards:
        raise InputError("folders", "a card of a purifier", "none")
    return sorted(cards, key=lambda card: str(card["name"]))


def leaderboard(cards: Sequence[dict[str, Any]]) -> str:
    """The page in Markdown: a table for each classifier and data set, then every figure.

    Args:
        cards: what :func:`read_cards` gives.

    Example:
        >>> figure = {"n": 10, "accuracy": 0.9, "low": 0.6, "high": 0.98}
        >>> card = {
        ...     "name": "mine", "parameters": 7, "command": "jernih run mine.yaml",
        ...     "config": {"title": "T", "sample": {"source": {"name": "folder"}},
        ...                "model": {"classifier": {"name": "resnet18"}}},
        ...     "figures": [{"images": "clean", "threat": "no attack", **figure}],
        ... }
        >>> print(leaderboard([card]).splitlines()[8])
        ## resnet18, folder
    """
    arenas: dict[str, list[dict[str, Any]]] = {}
    for card in cards:
        arenas.setdefault(_arena(card), []).append(card)
    parts = [HEAD]
    for arena, entrants in sorted(arenas.items()):
        parts.append(f"## {arena}\n\n{_table(entrants)}")
        parts += [_details(card) for card in sorted(entrants, key=_rank)]
    return "\n".join(parts)


def write_leaderboard(
    folders: Iterable[str | os.PathLike[str]], path: str | os.PathLike[str]
) -> Path:
    """Write the page of the cards in some folders."""
    return write_text(Path(path), leaderboard(read_cards(folders)))


def _arena(card: dict[str, Any]) -> str:
    config = card["config"]
    return f"{config['model']['classifier']['name']}, {config['sample']['source']['name']}"


def _table(cards: list[dict[str, Any]]) -> str:
    lines = [
        "| | purifier | parameters | n | clean | through it | worst oblivious | worst adaptive |",
        "|-|-|-|-|-|-|-|-|",
    ]
    for place, card in enumerate(sorted(cards, key=_rank), 1):
        clean, through = _of(card, "clean"), _of(card, "clean through purifier")
        cells = [_cell(clean[0] if clean else None), _cell(through[0] if through else None)]
        cells += [_cell(_worst(card, "oblivious"), True), _cell(_worst(card, "adaptive"), True)]
        count = clean[0]["n"] if clean else "–"
        name = f"[{card['name']}](#{card['name'].lower()})"
        lines.append(
            f"| {place} | {name} | {card['parameters']:,} | {count} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines) + "\n"


def _details(card: dict[str, Any]) -> str:
    few = any("balanced_low" in figure for figure in card["figures"])
    lines = [
        f"### {card['name']}\n",
        f"`{card['command']}`, {card['parameters']:,} parameters.{_notes(card)}\n",
        "| images | threat model | n | accuracy "
        + ("| balanced accuracy " if few else "")
        + "| after 8-bit rounding | PSNR, dB |",
        "|-|-|-|-|-|-|" + ("-|" if few else ""),
    ]
    for figure in card["figures"]:
        rounded = figure.get("accuracy_8bit")
        psnr = figure.get("psnr")
        lines.append(
            f"| {figure['images']} | {figure['threat']} | {figure['n']} | {_cell(figure)} "
            f"{f'| {_balanced(figure)} ' if few else ''}"
            f"| {'–' if rounded is None else f'{100 * rounded:.1f}'} "
            f"| {'–' if psnr is None else f'{psnr:.1f}'} |"
        )
    return "\n".join([*lines, *_detectors(card)]) + "\n"


def _balanced(figure: dict[str, Any]) -> str:
    if figure.get("balanced_low") is None:
        return "–"
    low, high = 100 * figure["balanced_low"], 100 * figure["balanced_high"]
    return f"{100 * figure['balanced_accuracy']:.1f} [{low:.1f}, {high:.1f}]"


def _detectors(card: dict[str, Any]) -> list[str]:
    """A table of detectors: AUROC on attacked images, flagged share of harmless ones."""
    rows = card.get("detection", [])
    if not rows:
        return []
    detectors = list(dict.fromkeys(row["detector"] for row in rows))
    nominal = ", ".join(sorted({f"{100 * row['nominal_fpr']:g} %" for row in rows}))
    lines = [
        "\nDetectors: AUROC on attacked images against the same unchanged; of images that nobody "
        f"attacked the per cent flagged, at thresholds set for {nominal}.\n",
        "| images | n | " + " | ".join(detectors) + " |",
        "|-|-|" + "-|" * len(detectors),
    ]
    for images, threat in dict.fromkeys((row["images"], row["threat"]) for row in rows):
        found = {
            row["detector"]: row
            for row in rows
            if (row["images"], row["threat"]) == (images, threat)
        }
        name = threat if images == "attacked" else images
        cells = [_detected(found.get(detector)) for detector in detectors]
        lines.append(f"| {name} | {next(iter(found.values()))['n']} | " + " | ".join(cells) + " |")
    return lines


def _detected(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    if "auroc" not in row:
        low, high = 100 * row["flagged_low"], 100 * row["flagged_high"]
        return f"{100 * row['flagged']:.1f} % [{low:.1f}, {high:.1f}]"
    ends = (row["auroc_low"], row["auroc_high"])
    told = "" if None in ends else f" [{ends[0]:.3f}, {ends[1]:.3f}]"
    return f"{row['auroc']:.3f}{told}"


def _notes(card: dict[str, Any]) -> str:
    return f" {card['notes']}" if card.get("notes") else ""


def _of(card: dict[str, Any], images: str) -> list[dict[str, Any]]:
    return [figure for figure in card["figures"] if figure["images"] == images]


def _worst(card: dict[str, Any], knowledge: str) -> dict[str, Any] | None:
    found = [f for f in _of(card, "restored") if str(f["threat"]).startswith(knowledge)]
    return min(found, key=lambda figure: float(figure["accuracy"]), default=None)


def _rank(card: dict[str, Any]) -> tuple[float, float, str]:
    worst = [_worst(card, knowledge) for knowledge in ("adaptive", "oblivious")]
    adaptive, oblivious = (-1.0 if w is None else float(w["accuracy"]) for w in worst)
    return -adaptive, -oblivious, str(card["name"])


def _cell(figure: dict[str, Any] | None, threat: bool = False) -> str:
    if figure is None:
        return "–"
    shown = (
        f"{100 * figure['accuracy']:.1f} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"
    )
    return f"{shown} ({figure['threat']}, n = {figure['n']})" if threat else shown
