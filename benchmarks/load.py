"""The service under ten times its capacity: who is answered, who is refused, and what it costs.

    python benchmarks/load.py runs/jernih-s-imagenet --minutes 10 --out benchmarks/results

Starts `jernih serve` on this machine, on loopback alone. First a few clients ask one after the
other: what they get through is the capacity. Then for so many minutes requests are sent at ten
times that rate, whether or not earlier ones are answered, then again at the first rate. Told are
the answers by status, the times of those accepted, the resident memory of the service before and
after, and how soon it is itself again. Bounded in time and in requests; it stops by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import platform
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from jernih.storage import write_json

CLIENTS = 4
MOST = 200_000
AT_ONCE = 500
"""Most requests under way from here: a generator has its bounds too."""


def picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG", quality=80)
    return stream.getvalue()


PICTURES = [picture(seed) for seed in range(8)]


async def ask(client: httpx.AsyncClient, seen: list[tuple[int, float]]) -> None:
    start = time.monotonic()
    try:
        content = random.choice(PICTURES)  # noqa: S311 - any will do
        found = await client.post("/v1/classify", files={"image": content})
        status = found.status_code
    except httpx.TransportError:
        status = 0
    seen.append((status, time.monotonic() - start))


async def closed(client: httpx.AsyncClient, seconds: float) -> list[tuple[int, float]]:
    """A few clients, each with its next request once the last is answered."""
    seen: list[tuple[int, float]] = []
    limit = time.monotonic() + seconds

    async def one() -> None:
        while time.monotonic() < limit:
            await ask(client, seen)

    await asyncio.gather(*(one() for _ in range(CLIENTS)))
    return seen


async def flood(client: httpx.AsyncClient, rate: float, seconds: float) -> tuple[Any, int]:
    """Requests at a rate, whatever becomes of those before; and how many were not even sent."""
    seen: list[tuple[int, float]] = []
    tasks: set[asyncio.Task[None]] = set()
    skipped = 0
    start = time.monotonic()
    for number in range(min(MOST, int(rate * seconds))):
        due = start + number / rate
        if due > time.monotonic():
            await asyncio.sleep(due - time.monotonic())
        if len(tasks) >= AT_ONCE:
            skipped += 1
            await asyncio.sleep(0)
            continue
        task = asyncio.create_task(ask(client, seen))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if time.monotonic() - start > seconds:
            break
    await asyncio.gather(*tasks)
    return seen, skipped


def told(seen: list[tuple[int, float]], seconds: float) -> dict[str, Any]:
    right = np.array([taken for status, taken in seen if status == 200]) * 1000
    quantiles = [float(v) for v in np.percentile(right, [50, 95, 99])] if len(right) else []
    return {
        "sent": len(seen),
        "statuses": {str(k): v for k, v in sorted(Counter(s for s, _ in seen).items())},
        "answered_a_second": len(right) / seconds,
        "p50_p95_p99_ms": quantiles,
    }


def resident(process: int) -> float:
    """Resident memory in MiB, on Linux."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def measure(address: str, process: int, minutes: float) -> dict[str, Any]:
    limits = httpx.Limits(max_connections=AT_ONCE + 8)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
        await closed(client, 5)  # warms up
        calm = 15.0
        before = told(await closed(client, calm), calm)
        memory = [resident(process)]
        rate = 10 * before["answered_a_second"]
        seconds = 60 * minutes
        seen, skipped = await flood(client, rate, seconds)
        memory.append(resident(process))
        start = time.monotonic()
        await ask(client, recovered := [])
        soon = time.monotonic() - start
        after = told(await closed(client, calm), calm)
        memory.append(resident(process))
    return {
        "calm": before,
        "ten_times": {**told(seen, seconds), "rate": rate, "minutes": minutes, "unsent": skipped},
        "calm_again": after,
        "first_after_s": soon,
        "first_after_status": recovered[0][0],
        "memory_mib": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="what `jernih serve` takes")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, help="folder for load.json")
    arguments = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jernih", "serve", arguments.model, "--port", str(port)]
    command += ["--no-page", "--batch", "8", "--queue", "32"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as service:  # noqa: S603
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                try:
                    if httpx.get(f"{address}/health").status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.2)
            found = asyncio.run(measure(address, service.pid, min(arguments.minutes, 30)))
        finally:
            service.terminate()
    for name in ("calm", "ten_times", "calm_again"):
        print(name, found[name])
    print(f"first answer after the flood: {found['first_after_s']:.2f} s")
    print("memory before, after, at the end:", [round(v) for v in found["memory_mib"]], "MiB")
    if arguments.out:
        machine = {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "load": os.getloadavg()[0],
        }
        write_json(arguments.out / "load.json", {**found, "machine": machine})


if __name__ == "__main__":
    main()
