"""What attacked files add up to: counts with intervals, and what rounding did to the attack."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jernih.assess.statistics import rate
from jernih.attack_files.folder import Row
from jernih.attack_files.formats import WORDS, Format
from jernih.attacks import UNBOUNDED, Attack
from jernih.types import Threat

_SLACK = 1e-6
"""How far past a bound a distance may be through float32 alone."""


def results(
    rows: Sequence[Row],
    unreadable: Mapping[str, str],
    attack: Attack,
    classes: int,
    file_format: Format,
) -> dict[str, Any]:
    """Counts, rates with Wilson's intervals, and what was lost by writing, as plain data.

    An image counts as fooled when the model was right before the attack and the attacker has what
    he wants after it.

    Args:
        rows: the images, at least one.
        unreadable: those left out.
        attack: what attacked them.
        classes: number of the model's classes.
        file_format: how they were written.
    """
    right = np.array([row.right for row in rows])
    fooled = np.array([row.right and row.success for row in rows])
    written = np.array([row.right and row.success_written for row in rows])
    survived = fooled & written
    farthest = max(row.distance_written for row in rows)
    past = [max(0.0, row.distance_written - attack.eps) for row in rows]
    shares = {
        "right_before": right,
        "right_after": np.array([row.after == row.label for row in rows]),
        "right_written": np.array([row.written == row.label for row in rows]),
        "fooled": fooled[right],
        "fooled_written": written[right],
        "survived": survived[fooled],
    }
    sizes = [row.distance for row, hit in zip(rows, fooled, strict=True) if hit]
    told = {
        "attack": attack.name,
        "threat": dataclasses.asdict(Threat(attack.norm, attack.eps, "oblivious")),
        "counts": {
            "images": len(rows),
            "unreadable": len(unreadable),
            "right_before": int(right.sum()),
            "fooled": int(fooled.sum()),
            "fooled_written": int(written.sum()),
            "survived": int(survived.sum()),
            "fooled_by_writing_alone": int((written & ~fooled).sum()),
        },
        "rates": {
            name: dataclasses.asdict(rate(hits)) if len(hits) else None
            for name, hits in shares.items()
        },
        "median_distance_fooled": float(np.median(sizes)) if sizes else None,
        "written": {
            "format": file_format,
            "max_linf": max(row.linf_written for row in rows),
            "max_distance": farthest,
            "past_bound": max(past),
            "images_past_bound": sum(excess > _SLACK for excess in past),
        },
        "unreadable": dict(unreadable),
    }
    return {**told, "warnings": _warnings(told, attack, classes, file_format)}


def lines(told: Mapping[str, Any]) -> list[str]:
    """The results in a few lines of plain words."""
    counts, rates, written = told["counts"], told["rates"], told["written"]
    threat = Threat(**told["threat"])
    bounded = threat.eps < (1 if threat.norm == "linf" else UNBOUNDED)
    within = f"eps {threat.eps:g}" if bounded else "no bound"
    who = f"{threat.knowledge}, {threat.norm}, {within}"
    head = f"{counts['images']} images, {told['attack']} ({who})"
    words = WORDS[written["format"]]
    out = [
        f"{head}; right when clean: {_share(rates['right_before'])}",
        f"of these fooled in float: {_share(rates['fooled'])}",
        f"of these fooled as {words}: {_share(rates['fooled_written'])}",
    ]
    if counts["fooled"]:
        alone = counts["fooled_by_writing_alone"]
        more = f"; {alone} more fooled by rounding alone" if alone else ""
        out.append(f"successes that survived writing: {_share(rates['survived'])}{more}")
    after = f"after writing: largest L∞ distance {_grey(written['max_linf'])}"
    if threat.norm != "linf":
        after += f", {threat.norm} distance {written['max_distance']:.4g}"
    if written["images_past_bound"]:
        past = written["past_bound"]
        size = _grey(past) if threat.norm == "linf" else f"{past:.2g}"
        after += f"; {size} past the bound, on {written['images_past_bound']} images"
    elif bounded:
        after += "; within the bound"
    out.append(after)
    if counts["unreadable"]:
        out.append(f"unreadable and left out: {counts['unreadable']}")
    return out


def _warnings(
    told: Mapping[str, Any], attack: Attack, classes: int, file_format: Format
) -> list[str]:
    counts = told["counts"]
    found = []
    if counts["right_before"] * classes <= counts["images"]:
        found.append(
            "on clean images the model is no better than guessing: are its classes in order, its "
            "normalisation and the size of the images right?"
        )
    lost = counts["fooled"] - counts["survived"]
    if lost:
        plural = "success was" if lost == 1 else "successes were"
        found.append(f"{lost} {plural} undone by writing; png16 or npy would keep more")
    if file_format == "png" and attack.norm == "linf" and 0 < attack.eps < 0.5 / 255:
        found.append("the bound is less than half a grey level: 8-bit files cannot hold it")
    return found


def _share(share: Mapping[str, Any] | None) -> str:
    if share is None:
        return "0 of 0"
    value, low, high, level = (100 * share[key] for key in ("value", "low", "high", "level"))
    interval = f"{level:.0f} % interval {low:.1f}–{high:.1f}"
    return f"{share['successes']} of {share['n']} ({value:.1f} %, {interval})"


def _grey(size: float) -> str:
    return f"{size:.5f} ({size * 255:.2f} grey levels)"
