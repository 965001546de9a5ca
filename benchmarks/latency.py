"""What the defence costs in time: the bare classifier, the purifier, and both with the detector.

    python benchmarks/latency.py --out benchmarks/results/latency.json
    python benchmarks/latency.py --model runs/jernih-s-imagenet --calibrate photos

Milliseconds for one image (p50, p95, p99) and images a second in batches of 32, each in PyTorch
(prepared for fast passes; the purifier also in bfloat16), by torch.compile where there is a
compiler, and in ONNX Runtime; with --calibrate also in int8. All take turns within one run, in an
order drawn anew for each turn, with the same threads. Before each timed pass comes a pause, in
which the threads of the one before go to sleep, and a pass that is not timed. The ratio of a turn
is between two passes that lie moments apart, so that what else the machine does troubles it less
than the times themselves; how busy the machine was with other work is measured before and after,
and told.

Without --model it is a MobileNetV2 with random weights behind jernih-s-imagenet, with the detector
by reconstruction error, at 224 px: times do not depend on the weights.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import jernih
from jernih import load_classifier
from jernih.data.modify import Prepare
from jernih.defended import Defended
from jernih.detectors import DETECTORS
from jernih.export.graph import Graph, convert, quiet
from jernih.export.quantise import calibration_images, quantise
from jernih.export.shuffles import transpose_shuffles
from jernih.pipeline import find_defended
from jernih.purifiers import UNet, restore_purifier
from jernih.randomness import generator
from jernih.storage import write_json

Pass = Callable[[Tensor], Any]
WHAT = ("classifier", "purifier", "defended")
PAUSE = 0.02


def default_model() -> Defended:
    """MobileNetV2 behind the purifier that comes with the package."""
    classifier = load_classifier("mobilenetv2_100", [f"class{k}" for k in range(1000)])
    purifier = restore_purifier("jernih-s-imagenet")
    detector = DETECTORS.create("reconstruction-error", classifier=classifier, purifier=purifier)
    detector.calibrate(torch.linspace(0, 20, 100), fpr=0.05)
    return Defended(classifier, purifier, detector, prepare=Prepare(224, "crop")).eval()


def of(defended: Defended) -> dict[str, nn.Module]:
    """The three modules that are compared."""
    return dict(zip(WHAT, (defended.classifier, defended.purifier, Graph(defended)), strict=True))


def in_torch(module: nn.Module) -> Pass:
    def ask(images: Tensor) -> Any:
        with torch.inference_mode():
            return module(images)

    return ask


def in_onnx(proto: Any, threads: int) -> Pass:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run(None, {"images": images.numpy()})


def compiled(module: nn.Module) -> Pass | None:
    """By torch.compile, or None where there is no compiler for it."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++")):
        return None
    torch._inductor.config.freezing = True  # weights are constants: fold and fuse them
    fast = torch.compile(module, dynamic=False)

    def ask(images: Tensor) -> Any:
        with torch.no_grad():
            return fast(images)

    return ask


def contenders(
    defended: Defended, size: int, threads: int, calibrate: Path | None, compile_too: bool
) -> dict[tuple[str, str], Pass]:
    """What takes part, by runtime and what is asked."""
    made: dict[tuple[str, str], Pass] = {}
    ready = defended.frozen()
    example = torch.rand(2, 3, size, size, generator=generator("example"))
    for what, module in of(ready).items():
        made["PyTorch", what] = in_torch(module)
        if what == "defended" and calibrate is not None:
            fit = defended.prepare.fit if defended.prepare else "crop"
            images, _ = calibration_images(calibrate, Prepare(size, fit))
            whole = convert(module, example, opset=18, dynamic_batch=True)
            made["ONNX Runtime, int8", what] = in_onnx(quantise(whole, images), threads)
    if isinstance(ready.purifier, UNet):
        reduced = defended.frozen()
        reduced.purifier.precision = "bfloat16"
        for what in WHAT[1:]:
            made["PyTorch, bfloat16", what] = in_torch(of(reduced)[what])
    exported = defended.frozen()
    transpose_shuffles(exported.purifier)  # as export_onnx does
    for what, module in of(exported).items():
        proto = convert(module, example, opset=18, dynamic_batch=True)
        made["ONNX Runtime", what] = in_onnx(proto, threads)
    if compile_too:
        for what, module in of(defended).items():
            fast = compiled(module)
            if fast is not None:
                with quiet():
                    fast(example[:1])
                made["torch.compile", what] = fast
    return made


def take_turns(
    made: dict[tuple[str, str], Pass], images: Tensor, turns: int
) -> dict[tuple[str, str], list[float]]:
    """Milliseconds of each pass, turn by turn."""
    order = random.Random(0)  # noqa: S311 - an order, no secret
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in made}
    for _ in range(turns):
        keys = list(made)
        order.shuffle(keys)
        for key in keys:
            time.sleep(PAUSE)
            made[key](images)
            start = time.perf_counter()
            made[key](images)
            taken[key].append(1000 * (time.perf_counter() - start))
    return taken


def others_busy(seconds: float = 2.0) -> float | None:
    """The share of the processors that other work takes while this process sleeps."""
    with contextlib.suppress(OSError):
        before = _ticks()
        time.sleep(seconds)
        idle, whole = (now - then for now, then in zip(_ticks(), before, strict=True))
        return 1 - idle / max(whole, 1)
    return None


def _ticks() -> tuple[int, int]:
    fields = [int(part) for part in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return fields[3] + fields[4], sum(fields)


def summary(
    one: dict[tuple[str, str], list[float]], many: dict[tuple[str, str], list[float]], batch: int
) -> list[dict[str, Any]]:
    """A row for each contender, with ratios to the bare classifier in the same runtime."""
    rows = []
    for key, times in one.items():
        runtime, what = key
        bare = one[runtime.partition(",")[0], "classifier"]
        p50, p95, p99 = (float(value) for value in np.percentile(times, [50, 95, 99]))
        rows.append(
            {
                "runtime": runtime,
                "what": what,
                "p50_ms": p50,
                "p95_ms": p95,
                "p99_ms": p99,
                "least_ms": min(times),
                "p50_of_bare": p50 / float(np.percentile(bare, 50)),
                "p95_of_bare": p95 / float(np.percentile(bare, 95)),
                "turn_of_bare": float(np.median(np.divide(times, bare))),
                "p95_of_bare_in_pytorch": p95
                / float(np.percentile(one["PyTorch", "classifier"], 95)),
                "images_a_second": 1000 * batch / float(np.median(many[key])),
            }
        )
    return rows


def cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a run's folder or a packaged model")
    parser.add_argument("--size", type=int, help="height and width; left out: the model's, or 224")
    parser.add_argument("--repeat", type=int, default=200, help="turns of single images")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=7, help="turns of batches")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--calibrate", type=Path, help="folder of images for int8")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    defended = find_defended(arguments.model) if arguments.model else default_model()
    size = arguments.size or (defended.prepare.size if defended.prepare else 224)
    made = contenders(
        defended, size, arguments.threads, arguments.calibrate, not arguments.no_compile
    )
    images = torch.rand(arguments.batch, 3, size, size, generator=generator("latency"))
    busy = [others_busy()]
    one = take_turns(made, images[:1].clone(), arguments.repeat)
    busy.append(others_busy())
    many = take_turns(made, images, arguments.batches)
    busy.append(others_busy())
    rows = summary(one, many, arguments.batch)

    table = Table(
        "runtime", "what", "p50 ms", "p95 ms", "p99 ms", "p95 of bare", "turn of bare",
        "p95 of bare in PyTorch", f"images/s by {arguments.batch}",
        title=f"{size} px, {arguments.threads} threads, {arguments.repeat} turns",
    )  # fmt: skip
    for row in rows:
        table.add_row(
            row["runtime"],
            row["what"],
            *(f"{row[name]:.1f}" for name in ("p50_ms", "p95_ms", "p99_ms")),
            *(
                f"{row[name]:.2f}"
                for name in ("p95_of_bare", "turn_of_bare", "p95_of_bare_in_pytorch")
            ),
            f"{row['images_a_second']:.0f}",
        )
    console = Console(width=120)
    console.print(table)
    known = [share for share in busy if share is not None]
    if known:
        console.print(f"Other work took {100 * min(known):.0f} to {100 * max(known):.0f} % of the "
                      "processors before, between and after.")  # fmt: skip
    if arguments.out:
        told = {
            "model": arguments.model or "mobilenetv2_100 (random weights) behind jernih-s-imagenet",
            "detector": None if defended.detector is None else defended.detector.describe(),
            "policy": defended.policy,
            "size": size,
            "turns": arguments.repeat,
            "batch": arguments.batch,
            "batch_turns": arguments.batches,
            "threads": arguments.threads,
            "rows": rows,
            "others_busy": busy,
            "machine": {
                "cpu": cpu(),
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "onnxruntime": onnxruntime.__version__,
                "jernih": jernih.__version__,
            },
        }
        write_json(arguments.out, told)
        console.print(f"JSON: {arguments.out}", soft_wrap=True)


if __name__ == "__main__":
    main()
