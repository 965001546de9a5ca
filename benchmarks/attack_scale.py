"""Time and memory of FGSM against batch size and number of images, for `attacks.py --scale`.

Images are read from disk as they are needed; a folder of 200 files is gone through again and again.
Each figure comes from a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jernih.attacks import FGSM
from jernih.classifiers import Classifier, restore_classifier, save_classifier
from jernih.data.images import read_image, write_png
from jernih.randomness import generator

FILES, BATCH = 200, 32
COUNTS = (100, 1_000, 10_000)
BATCHES = (1, 4, 16, 64)


def scale(classifier: Classifier) -> list[dict[str, float]]:
    """Images a second and peak memory for several batch sizes and numbers of images."""
    with tempfile.TemporaryDirectory() as folder:
        save_classifier(classifier, Path(folder) / "classifier.safetensors")
        for number in range(FILES):
            # Smooth noise: PNGs of the size that photos have.
            small = torch.rand(1, 3, 56, 56, generator=generator("scale", number))
            image = torch.nn.functional.interpolate(small, size=224, mode="bicubic")[0]
            write_png(Path(folder) / f"{number:04d}.png", image.clamp(0, 1))
        cases = [(count, BATCH) for count in COUNTS] + [(256, batch) for batch in BATCHES]
        return [_measure(folder, count, batch) for count, batch in cases]


def _measure(folder: str, count: int, batch: int) -> dict[str, float]:
    command = [sys.executable, __file__, folder, str(count), str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    figures: dict[str, float] = json.loads(done.stdout)
    print(figures, flush=True)
    return figures


def _stream(folder: Path, count: int, batch: int) -> Iterator[Tensor]:
    files = sorted(folder.glob("*.png"))
    for start in range(0, count, batch):
        numbers = range(start, min(start + batch, count))
        yield torch.stack([read_image(files[number % len(files)]) for number in numbers])


def main(folder: Path, count: int, batch: int) -> dict[str, Any]:
    """Attack images from disk and say how long it took and what it needed."""
    model = restore_classifier(folder / "classifier.safetensors").frozen()
    start, fooled = time.perf_counter(), 0
    for images in _stream(folder, count, batch):
        with torch.no_grad():
            labels = model(images).argmax(1)
        fooled += int(FGSM()(model, images, labels).success.sum())
    seconds = time.perf_counter() - start
    return {
        "images": count,
        "batch": batch,
        "seconds": seconds,
        "images_per_second": count / seconds,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "fooled": fooled,
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
