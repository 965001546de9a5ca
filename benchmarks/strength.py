"""What a purifier restores at several strengths, on validation images: to choose one by.

    python benchmarks/strength.py configs/jernih-s-chest-xray.yaml --weights jernih-s-chest-xray

The attacker sees the classifier alone (oblivious) and takes its predictions for labels, so that no
label leaks. Attacked images are rounded to 8 bits, as files would be. Printed are the share right,
the mean cross-entropy (it tells apart strengths of equal shares) and the PSNR. Test images are
never read.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import default_collate

from jernih.assess.statistics import rate
from jernih.attacks import FGSM, MIFGSM, PGD
from jernih.attacks.asking import ask
from jernih.config import load_config
from jernih.pipeline import Pipeline
from jernih.purifiers import PURIFIERS, restore_purifier
from jernih.storage import write_json
from purifiers import through

ATTACKS: dict[str, Callable[[], FGSM | PGD | MIFGSM]] = {
    "fgsm": FGSM,
    "pgd-10": lambda: PGD(steps=10),
    "mi-fgsm-10": lambda: MIFGSM(steps=10),
}


def psnr(clean: Tensor, others: Tensor) -> float:
    errors = (clean - others).square().flatten(1).mean(1)
    return float((-10 * errors.clamp(min=1e-10).log10()).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("--weights", required=True, help="of a purifier that has a strength")
    parser.add_argument("--strengths", type=float, nargs="+", default=[1, 1.1, 1.2, 1.3, 1.5])
    parser.add_argument("--eps", type=float, nargs="+", default=[0.01, 0.03])
    parser.add_argument("--limit", type=int, default=64, help="of the validation images")
    parser.add_argument("--out", type=Path, help="a JSON file")
    arguments = parser.parse_args()
    pipeline = Pipeline(load_config(arguments.config))
    classifier = pipeline.classifier().frozen()
    data = pipeline.modify()["val"]
    count = min(arguments.limit, len(data))
    chosen = [k * len(data) // count for k in range(count)]  # of all classes, as they lie
    images, labels, _ = default_collate([data[k] for k in chosen])
    predicted = ask(classifier, images).argmax(1)
    sets = {"clean": images}
    for name, make in ATTACKS.items():
        made = make().perturb(classifier, images, predicted, arguments.eps)
        for eps, some in zip(arguments.eps, made, strict=True):
            sets[f"{name} {eps:g}"] = (some * 255).round() / 255
        print(f"attacked by {name}", flush=True)
    rows = {}
    compared = {"none": PURIFIERS.create("identity").eval()}
    for strength in arguments.strengths:
        compared[f"{strength:g}"] = restore_purifier(arguments.weights, strength=strength)
    for label, purifier in compared.items():
        row: dict[str, dict[str, Any]] = {}
        for name, some in sets.items():
            images_seen = through(purifier, some)
            logits = ask(classifier, images_seen)
            hits = logits.argmax(1) == labels
            share = rate(hits.numpy())
            each = [float(hits[labels == k].float().mean()) for k in labels.unique()]
            row[name] = {
                "accuracy": [share.value, share.low, share.high],
                "balanced_accuracy": sum(each) / len(each),
                "cross_entropy": float(functional.cross_entropy(logits, labels)),
                "psnr": psnr(images, images_seen),
            }
        rows[label] = row
        told = (
            f"{100 * r['accuracy'][0]:.1f}, {r['cross_entropy']:.3f}, {r['psnr']:.1f}"
            for r in row.values()
        )
        print(f"{label} | {' | '.join(told)}", flush=True)
    if arguments.out:
        write_json(
            arguments.out,
            {
                "config": arguments.config,
                "weights": arguments.weights,
                "split": "val",
                "n": count,
                "threat_model": "oblivious, predicted labels, rounded to 8 bits",
                "intervals": "Wilson, 95 %",
                "torch": str(torch.__version__),
                "rows": rows,
            },
        )


if __name__ == "__main__":
    main()
