"""How fast attacks are, beside torchattacks, foolbox and ART in the same run.

    python benchmarks/attacks.py --images ../shared/data/imagenet-sample \
        --weights ../shared/weights/mobilenet_v2_imagenet.safetensors --out benchmarks/results

Each attack runs with the same weights, images, steps and batch in every library, the libraries in
turn, several times over; what is reported is the median of the ratios within each turn, so that a
noisy machine slows all alike. "limit" is the bare loop of forward pass and input gradient on our
prepared network. Labels are what the model says of the clean images. `--memory` measures the peak
memory of each library, `--scale` ours against the number of images; both start processes of their
own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from attack_scale import scale
from peers import LIBRARIES, Run, Setting, runs_of
from torch import Tensor

from jernih.attacks import distance
from jernih.classifiers import Classifier, load_classifier
from jernih.data.images import read_image
from jernih.data.modify import Prepare
from jernih.randomness import generator
from jernih.storage import write_json

EPS = 8 / 255
NETWORKS = ("mobilenet", "xception")
XCEPTION = Path(__file__).parent.parent / "weights" / "study-b-xception.safetensors"
# Bound, steps, and share of the batch of each attack: ART takes minutes for an image in some. The
# ensemble's bound leaves some images standing: on models broken by the first member the others
# would never run.
ATTACKS: dict[str, tuple[float | None, int, float]] = {
    "fgsm": (EPS, 1, 1),
    "pgd": (EPS, 10, 1),
    "deepfool": (None, 10, 0.125),
    "carlini-wagner": (None, 20, 0.125),
    "apgd": (EPS, 10, 1),
    "square": (EPS, 20, 1),
    "auto-attack": (0.0005, 10, 1),
}


def load(network: str, weights: str | None) -> Classifier:
    """MobileNetV2 with the weights given (random ones without), or study B's Xception."""
    if network == "xception":
        card = json.loads(XCEPTION.with_suffix(".json").read_text(encoding="utf-8"))["unit"]
        return load_classifier(
            card["name"], card["classes"], one_logit=card["one_logit"], weights=XCEPTION
        )
    classes = [str(number) for number in range(1000)]
    return load_classifier("mobilenetv2_100", classes, weights=weights)


def read(folder: str | None, count: int) -> Tensor:
    """The first images of a folder at 224 × 224, or noise without one."""
    if folder is None:
        return torch.rand(count, 3, 224, 224, generator=generator("benchmark"))
    files = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in (".jpeg", ".jpg"))
    prepare = Prepare(224, "crop")
    return torch.stack([prepare(read_image(file)) for file in files[:: len(files) // count]])[
        :count
    ]


def race(
    runs: dict[str, Run], models: dict[str, Classifier], images: Tensor, labels: Tensor, turns: int
) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
    """Seconds of each library in each turn, and what it made."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    made: dict[str, Tensor] = {}
    for turn in range(turns):
        names = list(runs)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            made[name] = runs[name](models[name], images.clone(), labels.clone())
            seconds[name].append(time.perf_counter() - start)
    return seconds, made


def outcome(model: Classifier, images: Tensor, labels: Tensor, made: Tensor) -> dict[str, float]:
    """Share of images fooled, and how far those went."""
    with torch.no_grad():
        fooled = model(made).argmax(1) != labels
    far = distance(images, made, "l2")[fooled]
    return {
        "fooled": float(fooled.float().mean()),
        "median_l2": float(far.median()) if len(far) else float("nan"),
        "largest_linf": float(distance(images, made, "linf").max()),
    }


def compare(arguments: argparse.Namespace, network: str, attack: str) -> dict[str, Any]:
    """One row of the table."""
    classifier = load(network, arguments.weights).eval()
    frozen = classifier.frozen()
    eps, steps, share = ATTACKS[attack]
    share *= 1 if network == "mobilenet" else 0.25
    batch = max(1, round(share * arguments.batch))
    images = read(arguments.xrays if network == "xception" else arguments.images, batch)
    with torch.no_grad():
        labels = classifier(images).argmax(1)
    setting = Setting(attack, eps, steps, len(classifier.classes))
    runs = runs_of(setting)
    models = {name: frozen if name in ("jernih", "limit") else classifier for name in runs}
    for name in runs:  # the first call of each warms caches
        runs[name](models[name], images[:1].clone(), labels[:1].clone())
    seconds, made = race(runs, models, images, labels, arguments.turns)
    ours = seconds["jernih"]
    rows = {
        name: {
            "images_per_second": len(images) / statistics.median(times),
            "seconds": times,
            "ours_is_faster_by": statistics.median(
                theirs / mine for theirs, mine in zip(times, ours, strict=True)
            ),
        }
        | ({} if name == "limit" else outcome(classifier, images, labels, made[name]))
        for name, times in seconds.items()
    }
    return {"network": network, "setting": str(setting), "batch": len(images), "libraries": rows}


def peak_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Peak memory in MiB of each library's PGD in a process of its own, without torch's share."""
    peaks: dict[str, Any] = {}
    for library in ("nothing", *LIBRARIES):
        command = [sys.executable, __file__, "--memory-of", library, "--batch", "32"]
        if arguments.weights:
            command += ["--weights", arguments.weights]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            print(f"{library} is left out: {done.stderr.strip().splitlines()[-1]}")
            continue
        peaks[library] = float(done.stdout.split()[-1])
    return {name: peak - peaks["nothing"] for name, peak in peaks.items() if name != "nothing"}


def memory_of(arguments: argparse.Namespace) -> None:
    """Run one library's PGD and print this process's peak memory in MiB."""
    classifier, images = load("mobilenet", arguments.weights), read(None, arguments.batch)
    setting = Setting("pgd", EPS, 3, len(classifier.classes))
    runs = runs_of(setting)
    if arguments.memory_of != "nothing":
        with torch.no_grad():
            labels = torch.cat([classifier(image[None]).argmax(1) for image in images])
        model = classifier.frozen() if arguments.memory_of == "jernih" else classifier
        runs[arguments.memory_of](model, images, labels)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def machine() -> dict[str, Any]:
    """What the figures were measured with."""
    versions = {}
    for package in ("torch", "torchattacks", "foolbox", "adversarial-robustness-toolbox"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **versions,
    }


def show(row: dict[str, Any]) -> None:
    """Print one row of the table."""
    print(f"{row['network']}, batch {row['batch']}: {row['setting']}")
    for name, cells in row["libraries"].items():
        seen = (
            f"fooled {cells['fooled']:.2f}, median L2 {cells['median_l2']:.3f}"
            if "fooled" in cells
            else "bare loop"
        )
        ratio = cells["ours_is_faster_by"]
        print(
            f"  {name:13} {cells['images_per_second']:8.2f} images/s   {ratio:6.2f} ×   {seen}",
            flush=True,
        )


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Images per second of each library, one panel a network."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    networks = sorted({row["network"] for row in rows})
    figure, panels = pyplot.subplots(
        1, len(networks), figsize=(6.5 * len(networks), 4), squeeze=False, layout="constrained"
    )
    for panel, network in zip(panels[0], networks, strict=True):
        chosen = [row for row in rows if row["network"] == network]
        for place, library in enumerate((*LIBRARIES, "limit")):
            at = [
                (number + 0.16 * (place - 2), row["libraries"][library]["images_per_second"])
                for number, row in enumerate(chosen)
                if library in row["libraries"]
            ]
            if at:
                spots, speeds = zip(*at, strict=True)
                panel.bar(spots, speeds, 0.15, label=library)
        names = [row["setting"].split(",")[0] for row in chosen]
        panel.set_xticks(range(len(chosen)), names, rotation=20)
        panel.set(yscale="log", ylabel="images per second", title=network)
        panel.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", help="folder of photos for MobileNetV2; noise without")
    parser.add_argument("--xrays", help="folder of radiographs for Xception; noise without")
    parser.add_argument("--weights", help="safetensors file for MobileNetV2; random without")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--attacks", nargs="+", choices=list(ATTACKS), default=list(ATTACKS))
    parser.add_argument("--batch", type=int, default=16, help="images; a quarter for Xception")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="peak memory of each library")
    parser.add_argument("--scale", action="store_true", help="100 to 10,000 images, from disk")
    parser.add_argument("--out", type=Path, help="folder for attacks.json and attacks.png")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.memory_of:
        memory_of(arguments)
        return
    target = arguments.out / "attacks.json" if arguments.out else None
    result: dict[str, Any] = {"rows": []}
    if target and target.is_file():  # parts measured at other times stay
        result = json.loads(target.read_text(encoding="utf-8"))
    parts: list[tuple[str, Callable[[], Any]]] = []
    if arguments.memory:
        parts.append(("peak_memory_mib", lambda: peak_memory(arguments)))
    if arguments.scale:
        parts.append(("scale", lambda: scale(load("mobilenet", arguments.weights))))
    for name, measure in parts:
        result[name] = {"machine": machine(), "figures": measure()}
        print(name, json.dumps(result[name]["figures"], indent=1))
    for network, attack in [
        (n, a) for n in arguments.networks for a in arguments.attacks if not parts
    ]:
        row = {**compare(arguments, network, attack), "machine": machine()}
        show(row)
        same = [
            r for r in result["rows"] if (r["network"], r["setting"]) != (network, row["setting"])
        ]
        result["rows"] = [*same, row]
        if target:
            write_json(target, result)
    if target:
        write_json(target, result)
        if result["rows"]:
            plot(result["rows"], target.with_suffix(".png"))


if __name__ == "__main__":
    main()
