"""The picture of the README: a radiograph of each class clean, attacked and restored.

    python docs/tools/picture.py --data shared/data/chest-xray/test

The classifier is the Xception of `weights/`, the purifier the jernih-s-chest-xray that comes with
the package. Shown is, of each class, the first file in name order that the classifier alone gets
right clean: not the one on which the restoration looks best. The radiographs are from Kermany et
al., Cell 2018 (https://doi.org/10.17632/rscbjbr9sj, CC BY 4.0), here brought to 224 × 224. Beside
the picture lies restored.json, which says what is on it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from jernih.answer import Answerer
from jernih.assess.words import format_threat
from jernih.classifiers import restore_classifier
from jernih.data.images import read_image
from jernih.data.modify import Prepare
from jernih.defended import Defended
from jernih.purifiers import restore_purifier
from jernih.serve.page.pictures import difference, pixels
from jernih.storage import atomic_path, sha256_file, write_json
from jernih.trial import Trial, attempt

ROOT = Path(__file__).parents[2]
PURIFIER = "jernih-s-chest-xray"
SIDE, GAP, HEAD, FOOT = 208, 8, 22, 24
RULE = "the first file of each class, in name order, that the classifier alone gets right clean"


def first_right(answerer: Answerer, folder: Path, eps: float) -> tuple[Path, Trial, int]:
    """The first file of a class whose clean image the classifier alone gets right.

    Returns:
        the file, what became of it, and how many were passed over before it.
    """
    for passed, file in enumerate(sorted(folder.iterdir())):
        trial = attempt(answerer, read_image(file), "fgsm", eps)
        if likeliest(trial.clean_alone)[0] == folder.name:
            return file, trial, passed
    raise SystemExit(f"the classifier gets no image of {folder} right")


def likeliest(shares: dict[str, float]) -> tuple[str, float]:
    """The likeliest class and its probability."""
    name = max(shares, key=lambda one: shares[one])
    return name, shares[name]


def panels(
    trial: Trial, eps: float, times: int
) -> list[tuple[str, NDArray[np.uint8], str, float, bool]]:
    """The panels of a row: what it is, its pixels, the class found, how sure, whether right."""
    clean, attacked = trial.clean.seen, trial.attacked
    true = trial.told
    added = f"what was added, ×{times}"
    rows: list[tuple[str, Tensor, dict[str, float]]] = [
        ("clean", clean, trial.clean_alone),
        (f"attacked, ε = {eps:g}", attacked.seen, trial.attacked_alone),
        ("restored", attacked.restored, attacked.probabilities),
    ]
    made = [
        (title, pixels(image), *likeliest(shares), likeliest(shares)[0] == true)
        for title, image, shares in rows
    ]
    made.insert(2, (added, difference(clean, attacked.seen, times), "", 0.0, True))
    return made


def draw(trials: Sequence[Trial], eps: float, times: int) -> Image.Image:
    """All rows on white; a class that is wrong is red and says so."""
    from matplotlib import font_manager

    face = font_manager.findfont("DejaVu Sans")
    font = ImageFont.truetype(face, 13)
    row = SIDE + FOOT + GAP
    sheet = Image.new("RGB", (4 * SIDE + 5 * GAP, HEAD + GAP + len(trials) * row), "white")
    pen = ImageDraw.Draw(sheet)
    for number, trial in enumerate(trials):
        top = HEAD + GAP + number * row
        for place, (title, shown, label, share, right) in enumerate(panels(trial, eps, times)):
            left = GAP + place * (SIDE + GAP)
            middle = left + SIDE // 2
            if number == 0:
                pen.text((middle, HEAD // 2 + GAP // 2), title, "black", font, anchor="mm")
            image = Image.fromarray(shown).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(image, (left, top))
            if label:
                sure = "> 99.9 %" if share > 0.999 else f"{100 * share:.1f} %"
                told = f"{label} {sure}" + ("" if right else ": wrong")
                colour = "#1b6e3c" if right else "#b3261e"
                pen.text((middle, top + SIDE + FOOT // 2), told, colour, font, anchor="mm")
    return sheet


def record(file: Path, trial: Trial, passed: int) -> dict[str, Any]:
    """What the picture shows of one file, as plain data."""
    return {
        "file": f"{file.parent.name}/{file.name}",
        "sha256": sha256_file(file),
        "passed_over": passed,
        "largest_change": float((trial.attacked.seen - trial.clean.seen).abs().max()),
        "clean": trial.clean_alone,
        "attacked": trial.attacked_alone,
        "restored": trial.attacked.probabilities,
        "psnr_attacked_db": trial.psnr_attacked,
        "psnr_restored_db": trial.psnr_restored,
    }


def main() -> None:
    """Make the picture and its record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder a class")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "assets" / "restored.png")
    parser.add_argument("--eps", type=float, default=0.01)
    parser.add_argument("--times", type=int, default=20, help="differences enlarged")
    given = parser.parse_args()

    classifier = restore_classifier(ROOT / "weights" / "study-b-xception.safetensors")
    defended = Defended(classifier, restore_purifier(PURIFIER), prepare=Prepare(224, "stretch"))
    answerer = Answerer(defended.eval(), "cpu")
    found = [first_right(answerer, given.data / name, given.eps) for name in classifier.classes]
    trials = [trial for _, trial, _ in found]
    with atomic_path(given.out) as path:
        sheet = draw(trials, given.eps, given.times)
        # A palette of greys and two colours loses nothing that the eye sees.
        sheet.quantize(128, dither=Image.Dither.NONE).save(path, "PNG", optimize=True)
    threat = trials[0].threat
    write_json(
        given.out.with_suffix(".json"),
        {
            "threat": None if threat is None else format_threat(threat, "fgsm"),
            "purifier": PURIFIER,
            "classifier": "study-b-xception",
            "rule": RULE,
            "source": "Kermany et al., Cell 2018, https://doi.org/10.17632/rscbjbr9sj, CC BY 4.0",
            "n": len(found),
            "images": [record(*one) for one in found],
            "sha256": sha256_file(given.out),
        },
    )


if __name__ == "__main__":
    main()
