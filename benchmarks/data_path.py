"""A hundred million images on paper, and the data path simulated: where the time would go.

    python benchmarks/data_path.py --out benchmarks/results
    python benchmarks/data_path.py --check 12   # needs Ray: the simulation beside a real archive

First what one image costs is measured on this machine, with one thread: reading it out of a tar
shard and decoding it, restoring it, encoding it as PNG; and its bytes before and after. Then the
data path of `jernih.bulk` is simulated event by event for 10⁸ such images: workers that each take
a shard, read it over a network that all share, work, and write the outcome, and of whom some die
and begin their shard again. Told are hours, worker-hours, what the time was spent on, bytes moved
and stored, and what the plan on paper (the slowest of work, reading and writing) says. With
--check so many small shards are really restored by one worker and by two, and the simulation has
to tell how long that takes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import math
import os
import platform
import random
import statistics
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simpy
import torch
from PIL import Image

from jernih.bulk import find_shards, purify_archive
from jernih.bulk.archives import Writer, encoded, read_shard
from jernih.memory import keep_freed_memory
from jernih.purifiers import restore_purifier
from jernih.purify_files import restore_any_size
from jernih.storage import write_json

IMAGES = 100_000_000
A_SHARD = 2000
GPU_MS = 0.5
"""Milliseconds to restore an image of 224 px on a GPU: an assumption, told as one."""


@dataclass(frozen=True)
class Cost:
    """What one image costs.

    Attributes:
        read, restore, write: seconds of a worker: unpacking and decoding, restoring, encoding.
        bytes_in, bytes_out: of its file before and after.
    """

    read: float
    restore: float
    write: float
    bytes_in: float
    bytes_out: float

    @property
    def work(self) -> float:
        return self.read + self.restore + self.write


@dataclass(frozen=True)
class Site:
    """Where the work is done.

    Attributes:
        workers: shards worked on at once, each by one core (and perhaps a share of a GPU).
        network: bytes a second that all workers together read, and as many that they write.
        stream: bytes a second that one worker reads or writes at most.
        life: mean seconds until a worker dies; infinite for never.
        restart: seconds until another takes its place.
    """

    workers: int
    network: float = 12.5e9
    stream: float = 100e6
    life: float = math.inf
    restart: float = 60.0

    @property
    def streams(self) -> int:
        """How many workers can read at full speed at once."""
        return max(1, round(self.network / self.stream))


def planned(cost: Cost, site: Site, images: int) -> dict[str, float]:
    """Hours on paper: by the work of the workers, and by the network alone."""
    moved = (cost.bytes_in + cost.bytes_out) / site.stream
    return {
        "workers": images * (cost.work + moved) / site.workers / 3600,
        "reading": images * cost.bytes_in / site.network / 3600,
        "writing": images * cost.bytes_out / site.network / 3600,
    }


def simulated(
    cost: Cost, site: Site, images: int, a_shard: int = A_SHARD, seed: int = 0, jitter: float = 0.1
) -> dict[str, float]:
    """The data path, event by event.

    Args:
        cost: of an image.
        site: where.
        images: how many.
        a_shard: how many a shard has.
        seed: of when workers die and how long shards take.
        jitter: spread of a shard's work about its mean, as a share of it (log-normal).
    """
    draw = random.Random(seed)  # noqa: S311 - a simulation
    environment = simpy.Environment()
    reading, writing = (simpy.Resource(environment, site.streams) for _ in range(2))
    todo = [a_shard] * (images // a_shard) + ([images % a_shard] if images % a_shard else [])
    told = dict.fromkeys(("work", "reading", "writing", "waiting", "lost"), 0.0)
    done = {"images": 0, "again": 0}
    ends = [0.0]

    def moved(link: simpy.Resource, name: str, size: float) -> Any:
        asked = environment.now
        with link.request() as turn:
            yield turn
            told["waiting"] += environment.now - asked
            yield environment.timeout(size / site.stream)
        told[name] += size / site.stream

    def shard(count: int) -> Any:
        yield from moved(reading, "reading", count * cost.bytes_in)
        spread = draw.lognormvariate(-(jitter**2) / 2, jitter)
        yield environment.timeout(count * cost.work * spread)
        told["work"] += count * cost.work * spread
        yield from moved(writing, "writing", count * cost.bytes_out)
        done["images"] += count
        ends.append(environment.now)

    def guarded(count: int) -> Any:
        # A worker that dies leaves nothing: its links are free again, its shard is begun anew.
        with contextlib.suppress(simpy.Interrupt):
            yield from shard(count)

    def worker() -> Any:
        death = environment.now + (
            draw.expovariate(1 / site.life) if site.life < math.inf else math.inf
        )
        while todo:
            count, begun = todo.pop(), environment.now
            work = environment.process(guarded(count))
            if death == math.inf:
                yield work
                continue
            yield work | environment.timeout(max(0.0, death - environment.now))
            if work.is_alive:
                work.interrupt()
                told["lost"] += environment.now - begun
                done["again"] += 1
                todo.append(count)
                yield environment.timeout(site.restart)
                death = environment.now + draw.expovariate(1 / site.life)

    for _ in range(site.workers):
        environment.process(worker())
    environment.run()
    if done["images"] != images:
        raise SystemExit(f"{done['images']} images done, of {images}")
    busy = sum(told.values())
    hours = max(ends) / 3600
    return {
        "hours": hours,
        "worker_hours": hours * site.workers,
        "shards_again": done["again"],
        **{f"share_{name}": seconds / busy for name, seconds in told.items()},
        "idle": 1 - busy / (max(ends) * site.workers),
    }


def photo(number: int, size: int = 224) -> bytes:
    """A JPEG as large as a photo of this size is: smooth areas, edges, some noise."""
    draw = np.random.default_rng(number)
    coarse = draw.integers(0, 255, (14, 14, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
    noisy = np.clip(smooth + draw.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noisy).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def write_shards(folder: Path, shards: int, each: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(shards):
        with tarfile.open(folder / f"{number:04d}.tar", "w") as archive:
            for index in range(each):
                content = photo(1000 * number + index)
                member = tarfile.TarInfo(f"{index:05d}.jpg")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def measured(folder: Path, images: int) -> Cost:
    """The cost of an image on this machine, one thread; medians over images."""
    torch.set_num_threads(1)
    purifier = restore_purifier("jernih-s-imagenet")
    write_shards(folder / "cost", 1, images)
    (shard,) = find_shards(str(folder / "cost"))
    writer = Writer(shard, str(folder / "cost-out"))
    seconds: dict[str, list[float]] = {"read": [], "restore": [], "write": []}
    sizes: list[tuple[int, int]] = []
    last = time.perf_counter()
    for entry in read_shard(shard):
        image = entry.image()
        at = [time.perf_counter()]
        restored = restore_any_size(purifier, image)
        at.append(time.perf_counter())
        content = encoded(restored)
        writer.add(entry, content)
        at.append(time.perf_counter())
        for name, (start, end) in zip(seconds, zip((last, *at), at, strict=False), strict=True):
            seconds[name].append(end - start)
        sizes.append((len(entry.content), len(content)))
        last = at[-1]
    writer.close()
    several = slice(min(5, images // 2), None)  # the first ones warm up
    means = {name: statistics.median(values[several]) for name, values in seconds.items()}
    return Cost(**means, bytes_in=_mean(sizes, 0), bytes_out=_mean(sizes, 1))


def _mean(sizes: list[tuple[int, int]], which: int) -> float:
    return statistics.fmean(size[which] for size in sizes)


def checked(cost: Cost, folder: Path, shards: int, each: int) -> list[dict[str, float]]:
    """Real archives by one worker and by two, beside what the simulation says of them."""
    import ray

    write_shards(folder / "archive", shards, each)
    rows = []
    for workers in (1, 2):
        # Ray gives each worker one core, and PyTorch takes as many threads.
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=40)
        at: list[float] = []
        out = folder / f"out-{workers}"
        purify_archive(
            str(folder / "archive"),
            str(out),
            workers=workers,
            progress=lambda *_, at=at: at.append(time.monotonic()),  # type: ignore[misc]
        )
        ray.shutdown()
        # Ray's start is not the data path's: time runs from the first outcome of every worker.
        real = (at[-1] - at[workers]) if workers < shards else math.nan
        whole = simulated(
            cost, Site(workers, stream=1e9), (shards - workers) * each, each, jitter=0
        )
        rows.append(
            {
                "workers": workers,
                "images": (shards - workers) * each,
                "measured_seconds": real,
                "simulated_seconds": whole["hours"] * 3600,
                "ratio": real / (whole["hours"] * 3600),
            }
        )
    return rows


def plans(cost: Cost) -> list[dict[str, Any]]:
    """The plans that are told."""
    with_gpu = dataclasses.replace(cost, restore=GPU_MS / 1000)
    day, hour = 86400.0, 3600.0
    sites = [
        ("100 cores", cost, Site(100)),
        ("1,000 cores", cost, Site(1000)),
        ("1,000 cores, each dies once a day", cost, Site(1000, life=day)),
        ("1,000 cores, each dies once an hour", cost, Site(1000, life=hour)),
        ("1,000 cores behind 1 Gbit/s", cost, Site(1000, network=125e6, stream=125e6)),
        ("100 cores with GPUs (assumed)", with_gpu, Site(100)),
    ]
    rows = []
    for title, of, site in sites:
        paper = planned(of, site, IMAGES)
        found = simulated(of, site, IMAGES)
        row = {
            "title": title,
            "workers": site.workers,
            "paper_hours": max(paper.values()),
            "bottleneck": max(paper, key=lambda name: paper[name]),
            **found,
        }
        row["over_paper"] = found["hours"] / row["paper_hours"]
        rows.append(row)
        print(
            f"{title:38} paper {row['paper_hours']:8.1f} h ({row['bottleneck']}), "
            f"simulated {found['hours']:8.1f} h, {found['worker_hours']:9,.0f} worker hours, "
            f"{found['shards_again']:5} shards again, idle {found['idle']:.0%}",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100, help="images whose cost is measured")
    parser.add_argument("--check", type=int, default=0, help="shards that are really restored")
    parser.add_argument("--out", type=Path, help="folder for data_path.json")
    arguments = parser.parse_args()
    keep_freed_memory()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        cost = measured(Path(folder), arguments.images)
        print(
            f"an image: read {1000 * cost.read:.1f} ms, restore {1000 * cost.restore:.1f} ms, "
            f"write {1000 * cost.write:.1f} ms; {cost.bytes_in / 1e3:.1f} kB in, "
            f"{cost.bytes_out / 1e3:.1f} kB out",
            flush=True,
        )
        checks = checked(cost, Path(folder), arguments.check, 50) if arguments.check else []
    for check in checks:
        print({name: round(value, 2) for name, value in check.items()})
    rows = plans(cost)
    storage = {
        "in_tb": IMAGES * cost.bytes_in / 1e12,
        "out_tb": IMAGES * cost.bytes_out / 1e12,
        "shards": IMAGES // A_SHARD,
        "shard_in_mb": A_SHARD * cost.bytes_in / 1e6,
        "shard_out_mb": A_SHARD * cost.bytes_out / 1e6,
    }
    print({name: round(value, 2) for name, value in storage.items()})
    if arguments.out:
        told = {
            "images": IMAGES,
            "cost": dataclasses.asdict(cost),
            "cost_of": arguments.images,
            "gpu_ms_assumed": GPU_MS,
            "plans": rows,
            "storage": storage,
            "checks": checks,
            "machine": {
                "cores": os.cpu_count(),
                "threads": 1,
                "load": load,
                "python": platform.python_version(),
                "torch": str(torch.__version__),
            },
        }
        write_json(arguments.out / "data_path.json", told)


if __name__ == "__main__":
    main()
