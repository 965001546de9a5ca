"""Whether memory stays flat and time linear as the number of images grows.

    python benchmarks/memory.py --counts 1000 10000 100000 --out benchmarks/results

Synthetic images, made one by one when asked for, are attacked (FGSM, oblivious), purified and
assessed, each count in a process of its own that keeps its batches in a folder as a run does. Told
are the peak of the resident memory and, without the start of Python, the seconds for an image by
the clock and by the processor (which other work on the machine hardly changes). The targets: 100
times the images within 1.1 times the memory, and as much time for each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from jernih.assess import AssessmentPlan, assess
from jernih.attacks import FGSM
from jernih.classifiers import load_classifier
from jernih.defended import Defended
from jernih.detectors import DETECTORS
from jernih.memory import keep_freed_memory
from jernih.purifiers import PURIFIERS
from jernih.randomness import seeded
from jernih.storage import write_json

SIZE = 32


class Synthetic(Dataset[tuple[Tensor, int, int]]):
    """Stripes with noise, along for one class and across for the other; nothing is kept."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.wave = (torch.arange(SIZE) * 1.5).sin() * 0.3 + 0.5

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        source = torch.Generator().manual_seed(index)
        stripes = self.wave.expand(SIZE, SIZE) if index % 2 else self.wave.expand(SIZE, SIZE).T
        noise = torch.rand(3, SIZE, SIZE, generator=source) * 0.2 - 0.1
        return (stripes + noise).clamp(0, 1), index % 2, index


def measured(count: int, batch: int) -> dict[str, float]:
    """Assess so many images in this process; what it took."""
    keep_freed_memory()
    torch.set_num_threads(1)
    with seeded(0):
        classifier = load_classifier("test_efficientnet", ["along", "across"])
        purifier = PURIFIERS.create("conv-autoencoder", widths=[8]).eval()
    detector = DETECTORS.create("reconstruction-error", classifier=classifier, purifier=purifier)
    with torch.no_grad():
        detector.calibrate(detector.eval()(torch.rand(64, 3, SIZE, SIZE)))
    defended = Defended(classifier, purifier, detector).eval()
    plan = AssessmentPlan(FGSM(), (0.03,), ("oblivious",), batch)
    names = [f"{number}" for number in range(count)]
    start, worked = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        found = assess(defended, Synthetic(count), names, plan, parts=Path(folder), key="memory")
    return {
        "n": found.n,
        "seconds": time.monotonic() - start,
        "processor_seconds": time.process_time() - worked,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "clean_accuracy": found.condition("clean").accuracy.value,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--out", type=Path, help="folder for memory.json")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(measured(arguments.one, arguments.batch)))
        return
    rows = []
    for count in arguments.counts:
        command = [sys.executable, __file__, "--one", str(count), "--batch", str(arguments.batch)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
        ratio = row["peak_mib"] / rows[0]["peak_mib"]
        each, worked = (1000 * row[name] / row["n"] for name in ("seconds", "processor_seconds"))
        print(
            f"{count:8,} images  {row['peak_mib']:7.0f} MiB ({ratio:.3f} of the first)  "
            f"{each:6.2f} ms an image, {worked:6.2f} ms of the processor",
            flush=True,
        )
    if arguments.out:
        machine = {
            "cores": os.cpu_count(),
            "threads": 1,
            "load": os.getloadavg()[0],
            "python": platform.python_version(),
            "torch": str(torch.__version__),
        }
        write_json(arguments.out / "memory.json", {"rows": rows, "machine": machine})


if __name__ == "__main__":
    main()
