"""What a second process brings: training, assessment and purifying with one thread a process.

    python benchmarks/world.py --rounds 3 --out benchmarks/results

Synthetic radiographs (the embedded default, smaller) are worked on by one process and by two, in
turns, each process with one thread (`OMP_NUM_THREADS=1`), started by torchrun and joined by gloo.
Timed is each work without the start of Python. The efficiency is the time of one process over
twice that of two: 1.0 would be a second process that costs nothing. Both have to find the same:
the largest difference between any two figures of their assessments is told, and so is whether the
purified files have the same bytes. Two cores or more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from jernih.assess import Assessment
from jernih.config import load_config
from jernih.data.images import write_png
from jernih.memory import keep_freed_memory
from jernih.pipeline import Pipeline
from jernih.purifiers import restore_purifier
from jernih.purify_files import purify_files
from jernih.randomness import generator
from jernih.storage import read_json, sha256_file, write_json
from jernih.world import current_world, join_world, leave_world

WORKS = ("train", "assess", "purify")
IMAGES = 48
"""Photos of 160 px that are purified."""


def pipeline(root: Path, run: Path, images: int) -> Pipeline:
    """The run, in a folder of its own; the configuration is the same for all."""
    overrides = {
        "out": str(root / "run"),
        "device": "cpu",
        "sample.source": {"name": "phantom", "images": images, "size": 96},
        "modify.size": 96,
        "model.classifier_training": {"epochs": 3, "batch_size": 16, "optimizer": "adamw"},
        "model.purifier": {"name": "jernih-s"},
        "model.purifier_training": {"epochs": 1, "batch_size": 16},
        "assess.batch_size": 16,
    }
    made = Pipeline(load_config(None, [f"{key}={json.dumps(to)}" for key, to in overrides.items()]))
    made.folder.path = run
    run.mkdir(parents=True, exist_ok=True)
    return made


def timed(work: Callable[[], Any]) -> float:
    world = current_world()
    world.meet()
    start = time.monotonic()
    work()
    world.meet()
    return time.monotonic() - start


def worker(work: str, root: Path, run: Path, images: int) -> None:
    """Do one of the works as one of the processes; the leader writes the seconds."""
    keep_freed_memory()
    torch.set_num_threads(1)
    world = join_world()
    made = pipeline(root, run, images)
    if work == "data":
        seconds = timed(made.modify)
    elif work == "train":
        made.modify()
        seconds = timed(made.model)
    elif work == "assess":
        made.model()
        seconds = timed(made.assess)
    else:
        purifier = restore_purifier("jernih-s-imagenet")
        seconds = timed(lambda: purify_files(root / "photos", run / "photos", purifier))
    if world.leads:
        write_json(run / f"{work}.json", {"seconds": seconds, "processes": world.size})
    leave_world()


def started(work: str, processes: int, root: Path, run: Path, images: int) -> float:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), __file__, "--work", work, "--images"]
    command += [str(images), "--folder", str(root), "--at", str(run)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603
        command, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{work} by {processes} failed:\n{done.stderr[-3000:]}")
    found = read_json(run / f"{work}.json")
    return float(found["seconds"])


def difference(first: Any, second: Any) -> float:
    """The largest difference between two figures; infinite where anything else differs."""
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return max((difference(first[name], second[name]) for name in first), default=0.0)
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return max(
            (difference(one, two) for one, two in zip(first, second, strict=True)), default=0
        )
    if isinstance(first, float) and isinstance(second, float):
        return abs(first - second)
    return 0.0 if first == second else float("inf")


def found(run: Path) -> Any:
    told = Assessment.load(run / "assess" / "assessment.json").to_dict()
    told.pop("environment")  # when, and on what
    return told


def measured(root: Path, images: int, rounds: int) -> dict[str, Any]:
    for number in range(IMAGES):
        picture = torch.rand(3, 160, 160, generator=generator("world", number))
        write_png(root / "photos" / f"{number:03d}.png", picture)
    models = root / "models"
    started("data", 1, root, models, images)
    started("train", 1, root, models, images)
    seconds: dict[str, dict[int, list[float]]] = {work: {1: [], 2: []} for work in WORKS}
    runs: dict[int, Path] = {}
    for turn in range(rounds):
        for processes in (1, 2):
            run = root / f"{turn}-{processes}"
            for stage in ("sample", "explore", "modify"):
                shutil.copytree(models / stage, run / stage)
            seconds["train"][processes].append(started("train", processes, root, run, images))
            shutil.rmtree(run / "model")
            # What is assessed has to be the same, and trainings on two processes differ.
            shutil.copytree(models / "model", run / "model")
            for work in ("assess", "purify"):
                seconds[work][processes].append(started(work, processes, root, run, images))
            runs[processes] = run
            print(
                turn, processes, {w: round(seconds[w][processes][-1], 1) for w in WORKS}, flush=True
            )
    rows = []
    for work in WORKS:
        ratios = [one / two for one, two in zip(seconds[work][1], seconds[work][2], strict=True)]
        speedup = statistics.median(ratios)
        rows.append(
            {
                "work": work,
                "seconds_1": seconds[work][1],
                "seconds_2": seconds[work][2],
                "speedup": speedup,
                "efficiency": speedup / 2,
            }
        )
    photos = sorted((runs[1] / "photos").rglob("*.png"))
    same = [
        sha256_file(photo) == sha256_file(runs[2] / photo.relative_to(runs[1])) for photo in photos
    ]
    return {
        "rows": rows,
        "rounds": rounds,
        "images": images,
        "assessed": found(runs[1])["n"],
        "purified": len(photos),
        "purified_alike": sum(same),
        "largest_difference": difference(found(runs[1]), found(runs[2])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=600, help="synthetic radiographs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for world.json")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--at", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        worker(arguments.work, arguments.folder, arguments.at, arguments.images)
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        told = measured(Path(folder), arguments.images, arguments.rounds)
    for row in told["rows"]:
        speed, efficiency = f"{row['speedup']:.2f}", f"{row['efficiency']:.2f}"
        print(f"{row['work']:8} {speed} times as fast, efficiency {efficiency}")
    print(f"largest difference between figures {told['largest_difference']:.1e}")
    print(f"purified alike {told['purified_alike']} of {told['purified']}")
    if arguments.out:
        machine = {
            "cores": os.cpu_count(),
            "threads": 1,
            "load": load,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
        }
        write_json(arguments.out / "world.json", {**told, "machine": machine})


if __name__ == "__main__":
    main()
