"""What could give the PSNR of 7.76 to 7.81 dB that study B publishes for its restored images?

Takes the official test images of the chest radiographs and compares each with what common mistakes
would compare it with, and two images of uniform noise with each other:

    python benchmarks/psnr_mismatch.py ../shared/data/chest-xray/test
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jernih.data.images import read_image
from jernih.data.modify import Prepare
from jernih.randomness import generator

PUBLISHED_MSE = 0.1667
PUBLISHED_PSNR = (7.76, 7.81)


def pairs(number: int, image: Tensor, before: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Original and "restored" image by the mistake that compares them."""

    def noise(name: str) -> Tensor:
        return torch.rand(image.shape, generator=generator(name, number))

    return {
        "two images of uniform noise": (noise("first"), noise("second")),
        "image against uniform noise": (image, noise("first")),
        "image in [0, 1] against itself in [-1, 1]": (image, 2 * image - 1),
        "image in [0, 1] against itself divided by 255 again": (image, image / 255),
        "image against a black one": (image, torch.zeros_like(image)),
        "image against uniform grey of 0.5": (image, torch.full_like(image, 0.5)),
        "image against its negative": (image, 1 - image),
        "image against the image before it": (image, before),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of images, searched to any depth")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    files = sorted(p for p in options.folder.rglob("*") if p.suffix.lower() in (".jpeg", ".png"))
    prepare: Callable[[Tensor], Tensor] = Prepare(224)
    found: dict[str, list[float]] = {}
    before = prepare(read_image(files[-1]))
    for number, file in enumerate(files):
        image = prepare(read_image(file))
        for name, (first, second) in pairs(number, image, before).items():
            found.setdefault(name, []).append(float((first - second).square().mean()))
        before = image
    rows = []
    for name, values in found.items():
        with np.errstate(divide="ignore"):  # equal images have an infinite one
            psnr = -10 * np.log10(np.array(values))
        low, high = np.percentile(psnr, [2.5, 97.5])
        rows.append(
            {
                "compared": name,
                "n": len(values),
                "mse_mean": float(np.mean(values)),
                "psnr_mean": float(psnr.mean()),
                "psnr_95_low": float(low),
                "psnr_95_high": float(high),
            }
        )
    if options.json:
        print(json.dumps({"published_mse": PUBLISHED_MSE, "rows": rows}, indent=2))
        return
    print(
        f"published: mean MSE {PUBLISHED_MSE}, PSNR {PUBLISHED_PSNR[0]} to {PUBLISHED_PSNR[1]} dB"
    )
    for row in rows:
        print(
            f"{row['compared']:52} n = {row['n']}  MSE {row['mse_mean']:.4f}  PSNR "
            f"{row['psnr_mean']:5.2f} dB, 95 % of images {row['psnr_95_low']:5.2f} to "
            f"{row['psnr_95_high']:5.2f}"
        )


if __name__ == "__main__":
    main()
