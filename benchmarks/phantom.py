"""How fast synthetic radiographs are made, against a target of 50 images a second on one core.

Usage: OMP_NUM_THREADS=1 python benchmarks/phantom.py --json result.json
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from jernih.data.phantom import LABELS, render
from jernih.storage import write_json

TARGET = 50.0
SIZE, IMAGES, REPEATS = 224, 40, 7


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", metavar="PATH", help="write machine and figures to this file")
    target = parser.parse_args().json
    rates = []
    for repeat in range(REPEATS + 1):
        start = time.perf_counter()
        for number in range(IMAGES):
            render(np.random.default_rng([repeat, number]), LABELS[number % 2], SIZE)
        rates.append(IMAGES / (time.perf_counter() - start))
    rates = rates[1:]  # the first repeat warms caches
    result = {
        "what": f"render, {SIZE}x{SIZE}, both classes",
        "unit": "images/s",
        "min": min(rates),
        "median": statistics.median(rates),
        "max": max(rates),
        "repeats": REPEATS,
        "images": IMAGES,
        "target": TARGET,
        "ratio": statistics.median(rates) / TARGET,
        "threads": os.environ["OMP_NUM_THREADS"],
        "load": os.getloadavg()[0],
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    print(
        f"{result['what']}: {result['median']:.1f} images/s (min {result['min']:.1f}, max "
        f"{result['max']:.1f}); {result['ratio']:.2f} of the target of {TARGET:g}"
    )
    if target:
        write_json(target, result)


if __name__ == "__main__":
    main()
