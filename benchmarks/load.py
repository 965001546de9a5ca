"""The service under ten times its capacity: who is answered, who is refused, and what it costs.

    python benchmarks/load.py runs/jernih-s-imagenet --minutes 10 --out benchmarks/results
    python benchmarks/load.py runs/jernih-s-imagenet --workers 2 --kill-every 10 --out …

Starts `jernih serve` on this machine, on loopback alone. First a few clients ask one after the
other: what they get through is the capacity. Then for so many minutes requests are sent at ten
times that rate, whether or not earlier ones are answered, then again at the first rate. Told are
the answers by status, the times of those accepted, the memory of all processes of the service
before and after, and how soon it is itself again. With --kill-every one of its processes, a decoder
or a copy of the model, is killed (SIGKILL) that often during the flood. Linux. Bounded in time and
in requests; it stops by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import platform
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
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


Seen = tuple[int, float, float]
"""Status, milliseconds as the client sees them, and as the service says."""


@dataclass(frozen=True)
class Service:
    port: int
    requests: list[bytes]


def picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG", quality=80)
    return stream.getvalue()


PICTURES = [picture(seed) for seed in range(8)]


def requests_of(port: int) -> list[bytes]:
    """Whole requests, made beforehand: the generator shares the machine and has to be light."""
    made = []
    for content in PICTURES:
        mark = "jernih-load"
        head = (
            f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        )
        body = head.encode() + content + f"\r\n--{mark}--\r\n".encode()
        first = (
            f"POST /v1/classify HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
            f"Content-Type: multipart/form-data; boundary={mark}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        made.append(first.encode() + body)
    return made


async def ask(service: Service, seen: list[Seen]) -> None:
    start = time.monotonic()
    status, inside = 0, 0.0
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(random.choice(service.requests))  # noqa: S311 - any will do
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 120)
        writer.close()
        status = int(answer[9:12] or 0)
        found = re.search(rb'"milliseconds":([\d.]+)', answer)
        inside = float(found.group(1)) if found else 0.0
    except (OSError, TimeoutError, ValueError):
        pass
    seen.append((status, 1000 * (time.monotonic() - start), inside))


async def closed(service: Service, seconds: float) -> list[Seen]:
    """A few clients, each with its next request once the last is answered."""
    seen: list[Seen] = []
    limit = time.monotonic() + seconds

    async def one() -> None:
        while time.monotonic() < limit:
            await ask(service, seen)

    await asyncio.gather(*(one() for _ in range(CLIENTS)))
    return seen


async def flood(service: Service, rate: float, seconds: float) -> tuple[list[Seen], int]:
    """Requests at a rate, whatever becomes of those before; and how many were not even sent."""
    seen: list[Seen] = []
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
        task = asyncio.create_task(ask(service, seen))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if time.monotonic() - start > seconds:
            break
    await asyncio.gather(*tasks)
    return seen, skipped


def told(seen: list[Seen], seconds: float) -> dict[str, Any]:
    right = [row for row in seen if row[0] == 200]
    return {
        "sent": len(seen),
        "statuses": {str(k): v for k, v in sorted(Counter(row[0] for row in seen).items())},
        "answered_a_second": len(right) / seconds,
        "p50_p95_p99_ms": quantiles([row[1] for row in right]),
        "within_the_service_ms": quantiles([row[2] for row in right]),
    }


def quantiles(values: list[float]) -> list[float]:
    return [round(float(v), 1) for v in np.percentile(values, [50, 95, 99])] if values else []


def family(process: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            parents.setdefault(int(parent), []).append(int(folder.name))
    found, waiting = [], [process]
    while waiting:
        found.append(waiting.pop())
        waiting += parents.get(found[-1], [])
    return found


def resident(process: int) -> float:
    """Memory of a process and all below it in MiB, what they share counted once."""
    total = 0
    for each in family(process):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


async def kill_now_and_then(process: int, seconds: float, killed: list[int]) -> None:
    """Kill one of the processes that work for the service, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        below = [
            each
            for each in family(process)[1:]
            if len(family(each)) == 1
            and b"multiprocessing.forkserver" in Path(f"/proc/{each}/cmdline").read_bytes()
        ]
        if below:
            killed.append(random.choice(below))  # noqa: S311 - any will do
            os.kill(killed[-1], signal.SIGKILL)


async def measure(
    port: int, process: int, minutes: float, kill_every: float | None
) -> dict[str, Any]:
    service = Service(port, requests_of(port))
    await closed(service, 5)  # warms up
    calm = 15.0
    before = told(await closed(service, calm), calm)
    memory = [resident(process)]
    rate = 10 * before["answered_a_second"]
    seconds = 60 * minutes
    start = time.monotonic()
    killed: list[int] = []
    killer = (
        None
        if kill_every is None
        else asyncio.create_task(kill_now_and_then(process, kill_every, killed))
    )
    seen, skipped = await flood(service, rate, seconds)
    if killer is not None:
        killer.cancel()
    took = time.monotonic() - start
    memory.append(resident(process))
    last: list[Seen] = []
    await ask(service, last)
    after = told(await closed(service, calm), calm)
    memory.append(resident(process))
    return {
        "calm": before,
        "ten_times": {**told(seen, took), "rate": rate, "seconds": took, "unsent": skipped},
        "calm_again": after,
        "first_after": {"status": last[0][0], "ms": last[0][1]},
        "memory_mib": memory,
        "killed": len(killed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="what `jernih serve` takes")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--workers", type=int, default=0, help="copies of the model")
    parser.add_argument("--kill-every", type=float, help="seconds between two kills")
    parser.add_argument("--out", type=Path, help="folder for load.json, or load_kills.json")
    arguments = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jernih", "serve", arguments.model, "--port", str(port)]
    command += ["--no-page", "--batch", "8", "--queue", "32", "--workers", str(arguments.workers)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as service:  # noqa: S603
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                try:
                    if httpx.get(f"{address}/health").status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.2)
                if service.poll() is not None:
                    raise SystemExit("the service did not start: try `jernih serve` by hand")
            else:
                raise SystemExit("the service did not get ready")
            minutes = min(arguments.minutes, 30)
            found = asyncio.run(measure(port, service.pid, minutes, arguments.kill_every))
        finally:
            service.terminate()
    for name in ("calm", "ten_times", "calm_again"):
        print(name, found[name])
    print("first answer after the flood:", found["first_after"])
    print("killed:", found["killed"])
    print("memory before, after, at the end:", [round(v) for v in found["memory_mib"]], "MiB")
    if arguments.out:
        name = "load.json" if arguments.kill_every is None else "load_kills.json"
        machine = {
            "workers": arguments.workers,
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "load": os.getloadavg()[0],
        }
        write_json(arguments.out / name, {**found, "machine": machine})


if __name__ == "__main__":
    main()
