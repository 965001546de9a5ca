"""SIGKILL at random moments: what a rerun leaves has to be what an undisturbed run leaves.

    python benchmarks/kills.py --kills 50 --out benchmarks/results

A whole run (sample, explore, modify, train classifier and purifier, assess), `attack` and `purify`
on small images are each done once without a disturbance, and then over and over: killed at a
random moment, done again to the end, and every file compared byte by byte. A moment after the end
does not count as a kill; what is left then is compared all the same. Files that say when they were
made (the report's head, logs of TensorBoard) are compared without that. Linux and macOS.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from jernih.attack_files import AttackFolder, attack_files, find_images, find_source
from jernih.attacks import FGSM
from jernih.config import load_config
from jernih.data.images import write_png
from jernih.data.modify import Prepare
from jernih.pipeline import Pipeline, Reporter
from jernih.purifiers import PURIFIERS
from jernih.purify_files import purify_files
from jernih.randomness import generator
from jernih.storage import write_json

PASSING = ("tensorboard", ".lock")


class Stage(Reporter):
    """Writes down which stage is running, for the record of where the kills fell."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def stage(self, name: str, state: str) -> None:
        if state == "running":
            self.file.write_text(name)


def images(root: Path, each: int = 24, size: int = 24) -> Path:
    """Noisy stripes along and across, as files."""
    for number, label in enumerate(("across", "along")):
        for index in range(each):
            wave = (torch.arange(size) * 1.5).sin() * 0.3 + 0.5
            stripes = wave.expand(size, size) if number else wave.expand(size, size).T
            noise = torch.rand(3, size, size, generator=generator(number, index)) * 0.1 - 0.05
            write_png(root / label / f"p{index}-{label}.png", (stripes + noise).clamp(0, 1))
    return root


def work_run(data: Path, out: Path) -> None:
    changes: dict[str, Any] = {
        "title": "kills", "sample.source": {"name": "folder", "path": str(data)},
        "modify.size": 24, "modify.rotation": 0,
        "model.classifier_training": {"epochs": 5, "batch_size": 8, "lr": 0.003},
        "model.epsilons": [0.05], "model.fpr": 0.25,
        "model.purifier": {"name": "conv-autoencoder", "widths": [4]},
        "model.purifier_training": {"epochs": 5, "batch_size": 8, "lr": 0.01},
        "assess.batch_size": 2,
    }  # fmt: skip
    config = load_config(None, [f"{key}={json.dumps(value)}" for key, value in changes.items()])
    Pipeline(config, out / "run", Stage(out / "stage")).run()


def work_attack(data: Path, out: Path) -> None:
    from jernih.classifiers import load_classifier

    classifier = load_classifier("test_efficientnet", ["across", "along"])
    attack_files(
        classifier, find_images(find_source(str(data)), out), FGSM(0.05),
        AttackFolder(out / "attacked"),
        prepare=Prepare(24), batch_size=4,
    )  # fmt: skip


def work_purify(data: Path, out: Path) -> None:
    purifier = PURIFIERS.create("total-variation", weight=0.05).eval()
    purify_files(data, out / "purified", purifier, device="cpu")


WORKS: dict[str, Callable[[Path, Path], None]] = {
    "run": work_run,
    "attack": work_attack,
    "purify": work_purify,
}


def start(work: Callable[[Path, Path], None], data: Path, out: Path) -> int:
    """The work in a child process that shares what is imported; its number."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            torch.set_num_threads(1)
            work(data, out)
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    return child


def digests(folder: Path) -> dict[str, str]:
    """The hash of every file, without moments in time."""
    found = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.is_dir() or name == "stage" or any(part in PASSING for part in file.parts):
            continue
        content = file.read_bytes()
        if file.suffix in (".html", ".json"):
            content = re.sub(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?[.\d]*", b"", content)
        if file.name == "stage.json":  # hashes of files that have such moments in them
            content = b"\n".join(re.findall(rb'"key": "\w+"', content))
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="that hit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for kills.json")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)  # noqa: S311 - moments, not secrets
    root = Path(tempfile.mkdtemp(prefix="jernih-kills-"))
    data = images(root / "data")
    undisturbed: dict[str, dict[str, str]] = {}
    seconds: dict[str, float] = {}
    for name, work in WORKS.items():
        for again in range(2):  # the second shows what differs without a kill
            begun = time.monotonic()
            out = root / name
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            if os.waitpid(start(work, data, out), 0)[1] != 0:
                raise SystemExit(f"{name} fails without a kill")
            seconds[name] = time.monotonic() - begun
            found = digests(out)
            if again and found != undisturbed[name]:
                differing = [f for f in found if found[f] != undisturbed[name].get(f)]
                raise SystemExit(f"{name} differs from run to run: {differing[:5]}")
            undisturbed[name] = found
        print(f"{name}: {seconds[name]:.1f} s, {len(undisturbed[name])} files", flush=True)
    rows: list[dict[str, Any]] = []
    while sum(row["killed"] for row in rows) < arguments.kills:
        name = chance.choices(list(WORKS), [3, 1, 1])[0]
        out = root / "killed"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        moment = chance.uniform(0, seconds[name])
        child = start(WORKS[name], data, out)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        stage = (out / "stage").read_text() if (out / "stage").is_file() else ""
        ended = os.waitpid(start(WORKS[name], data, out), 0)[1]
        left = digests(out)
        wrong = sorted(
            file
            for file in {*left, *undisturbed[name]}
            if left.get(file) != undisturbed[name].get(file)
        )
        row = {
            "work": name, "moment": moment, "killed": killed, "stage": stage,
            "rerun": ended == 0, "differing": wrong,
        }  # fmt: skip
        rows.append(row)
        word = "same" if ended == 0 and not wrong else f"DIFFERS {wrong[:4]}"
        print(f"{len(rows):3} {name:7} {moment:6.2f} s {stage:16} {word}", flush=True)
    bad = [row for row in rows if row["differing"] or not row["rerun"]]
    print(f"{len(rows)} moments, {arguments.kills} kills; {len(bad)} reruns differ")
    if arguments.out:
        machine = {"cores": os.cpu_count(), "python": platform.python_version()}
        write_json(arguments.out / "kills.json", {"rows": rows, "machine": machine})
    shutil.rmtree(root)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
