"""What purifiers restore and what they cost, side by side in one run.

    jernih run configs/jernih-s-imagenet.yaml --set model.purifier_weights=jernih-s-imagenet
    python benchmarks/purifiers.py runs/jernih-s-imagenet/config.yaml --out benchmarks/results

On the test images of a run whose models are trained: the share that the classifier gets right,
clean and under FGSM made on the classifier alone (an oblivious attacker), each through every
purifier; the PSNR of what is restored; milliseconds for one image, the purifiers and the bare
classifier in turn, median of the turns; and the peak memory of one pass, in a process of its own.
Attacked images are rounded to 8 bits, as files would be. Study B's autoencoder is untrained where
no weights of it are given: then its figures say what it costs, not what it restores.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from latency import cpu
from torch import Tensor, nn
from torch.utils.data import default_collate

from jernih.assess.statistics import rate
from jernih.attacks import FGSM
from jernih.attacks.asking import ask
from jernih.classifiers.prepare import channels_last
from jernih.config import load_config
from jernih.pipeline import Pipeline
from jernih.purifiers import PURIFIERS, Purifier, UNet, restore_purifier
from jernih.randomness import seeded
from jernih.storage import write_json

ROOT = Path(__file__).parent.parent
STUDY_A = ROOT / "weights" / "study-a-deep-autoencoder.safetensors"


def purifiers(own: Purifier, study_b: Path | None) -> dict[str, Purifier]:
    """All that are compared, by name; none of them is the bare classifier."""
    with seeded("study B"):
        trained = restore_purifier(study_b) if study_b else PURIFIERS.create(**_study_b())
    ours = {own.name: own}
    if isinstance(own, UNet):
        reduced = copy.deepcopy(own)
        reduced.precision = "bfloat16"
        ours[f"{own.name}, bfloat16"] = reduced
    return {
        **ours,
        "study A": restore_purifier(STUDY_A),
        "study B" if study_b else "study B, untrained": trained.eval(),
        "JPEG 75": PURIFIERS.create("jpeg", quality=75).eval(),
        "median 3": PURIFIERS.create("median", size=3).eval(),
        "total variation": PURIFIERS.create("total-variation", weight=0.05).eval(),
        "none": PURIFIERS.create("identity").eval(),
    }


def _study_b() -> dict[str, Any]:
    unit = load_config(ROOT / "configs" / "study-b.yaml").model.purifier
    return {"name": unit.name, **unit.options}


def psnr(clean: Tensor, others: Tensor) -> float:
    """Mean PSNR in dB of the images that differ at all; NaN where none does."""
    errors = (clean - others).square().flatten(1).mean(1)
    errors = errors[errors > 0]
    return float((-10 * errors.log10()).mean()) if len(errors) else float("nan")


def through(purifier: Purifier, images: Tensor) -> Tensor:
    """Restored images, a few at a time."""
    with torch.no_grad():
        return torch.cat([purifier(images[k : k + 8]) for k in range(0, len(images), 8)])


def milliseconds(models: dict[str, nn.Module], image: Tensor, turns: int) -> dict[str, float]:
    """Median time of one image through each model, the models in turn."""
    taken: dict[str, list[float]] = {name: [] for name in models}
    with torch.no_grad():
        for turn in range(turns + 1):
            for name, model in models.items():
                start = time.perf_counter()
                model(image)
                if turn:  # the first warms caches
                    taken[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(times) for name, times in taken.items()}


def highest() -> float:
    """Most memory in MiB that this process has held."""
    with contextlib.suppress(OSError):
        # Linux counts the parent's memory at the fork into ru_maxrss, not into this.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak(arguments: argparse.Namespace, name: str) -> float:
    """Peak memory in MiB of a process that restores one image."""
    command = [sys.executable, __file__, arguments.config, "--memory-of", name]
    if arguments.study_b:
        command += ["--study-b", str(arguments.study_b)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="a run whose models are trained")
    parser.add_argument("--study-b", type=Path, help="weights of study B's autoencoder")
    parser.add_argument("--eps", type=float, nargs="+", default=[0.01, 0.03, 0.05])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--limit", type=int, default=140)
    parser.add_argument("--out", type=Path, help="folder for purifiers.json")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    pipeline = Pipeline(load_config(arguments.config))
    defended = pipeline.model()
    compared = purifiers(defended.purifier, arguments.study_b)
    if arguments.memory_of:
        if arguments.memory_of != "nothing":
            through(compared[arguments.memory_of], torch.rand(1, 3, 224, 224))
        print(highest())
        return
    data = pipeline.modify()["test"]
    count = min(arguments.limit, len(data))
    images, labels, _ = default_collate([data[k] for k in range(count)])
    frozen = defended.classifier.frozen()
    made = FGSM().perturb(frozen, images, labels, arguments.eps)
    attacked = [(some * 255).round() / 255 for some in made]
    prepared = {name: channels_last(purifier.eval()) for name, purifier in compared.items()}
    spent = milliseconds({**prepared, "classifier": frozen}, images[:1], arguments.turns)
    nothing = peak(arguments, "nothing")
    rows = {}
    for name, purifier in compared.items():
        restored = [through(purifier, some) for some in (images, *attacked)]
        right = [rate((ask(frozen, some).argmax(1) == labels).numpy()) for some in restored]
        rows[name] = {
            "accuracy": [[r.value, r.low, r.high] for r in right],
            "psnr": [psnr(images, some) for some in restored],
            "milliseconds": spent[name],
            "of_the_classifier": spent[name] / spent["classifier"],
            "parameters": sum(p.numel() for p in purifier.parameters()),
            "peak_mib": peak(arguments, name) - nothing,
        }
        shares = "  ".join(f"{100 * r.value:5.1f}" for r in right)
        decibels = "  ".join(f"{value:5.1f}" for value in rows[name]["psnr"])
        print(f"{name:20} {shares} %   {decibels} dB   {spent[name]:8.2f} ms", flush=True)
    print(f"{'classifier':20} {spent['classifier']:.2f} ms an image")
    if arguments.out:
        told = {
            "config": arguments.config,
            "n": count,
            "attack": "fgsm, L∞, oblivious, rounded to 8 bits",
            "columns": ["clean", *arguments.eps],
            "intervals": "Wilson, 95 %",
            "classifier_milliseconds": spent["classifier"],
            "rows": rows,
            "machine": {
                "cores": os.cpu_count(),
                "threads": torch.get_num_threads(),
                "load": os.getloadavg()[0],
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "cpu": cpu(),
            },
        }
        write_json(arguments.out / "purifiers.json", json.loads(json.dumps(told)))


if __name__ == "__main__":
    main()
