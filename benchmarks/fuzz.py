"""Garbage in a hundred thousand forms: nothing may crash, hang, run code or write elsewhere.

    python benchmarks/fuzz.py --inputs 100000 --out benchmarks/results

Good files of every kind that is read from others (images, DICOM, manifests, configs, packaged
models, weights and their cards, checkpoints, shards) and requests to the HTTP service are damaged:
bits and bytes changed, pieces cut, doubled, moved between files, numbers put to their extremes.
What reads them may take them or refuse them in words (`InputError`). Another error, a process that
dies, more than 5 s, or a file made by a pickle is a finding, told with the number that makes its
input again. Work is done in processes that get 1 GiB of memory beyond what they begin with: an
input that they stop for its time or memory is told as stopped. Readers of strangers' images work
under the same bounds (`jernih.data.untrusted`), so there that is a refusal.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pickle
import platform
import random
import resource
import socket
import tarfile
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load, save

from jernih.processes import ProcessDied, Processes
from jernih.storage import write_json
from jernih.validate import InputError

MEMORY = 2**30
SECONDS = 5.0
BATCH = 100
INTERESTING = [0, 1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1]
ENDS = ("accepted", "refused", "stopped", "failed", "died")
WORDS = [
    b"null",
    b"-1",
    b"1e999",
    b"NaN",
    b"[]",
    b"{}",
    b'"x"',
    b"../../x",
    b"/etc/passwd",
    b"\0",
    b"&a *a",
]


def damaged(good: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """A file with some damage done to it."""
    content = bytearray(good)
    for _ in range(chance.choice([1, 1, 2, 3, 5, 12, 40])):
        if not content:
            break
        # Half of the damage goes to the beginning, where headers are.
        place = chance.randrange(len(content) if chance.random() < 0.5 else min(len(content), 400))
        kind = chance.randrange(9)
        if kind == 0:
            content[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            content[place] = chance.choice([0, 255, chance.randrange(256)])
        elif kind == 2:
            del content[place : place + chance.choice([1, 2, 4, 50, 5000])]
        elif kind == 3:
            content[place:place] = chance.randbytes(chance.choice([1, 2, 4, 100]))
        elif kind == 4:
            width = chance.choice([2, 4])
            number = chance.choice(INTERESTING) % 256**width
            content[place : place + width] = number.to_bytes(
                width, chance.choice(["little", "big"])
            )
        elif kind == 5:
            piece = content[place : place + chance.choice([4, 30, 400])]
            content[place:place] = piece * chance.choice([1, 2, 20])
        elif kind == 6:
            other = chance.choice(others)
            start = chance.randrange(len(other))
            content[place:place] = other[start : start + chance.choice([8, 60, 2000])]
        elif kind == 7:
            content[place:place] = chance.choice(WORDS)
        elif chance.random() < 0.3:
            del content[place:]
    return bytes(content)


def image_seeds() -> dict[str, bytes]:
    noise = Image.effect_noise((40, 30), 60)
    colour = Image.merge("RGB", [noise, noise.rotate(90), noise])
    exif = colour.getexif()
    exif[274], exif[270] = 6, "a description"

    def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    deep = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40))
    return {
        "a.png": saved(colour, "PNG", exif=exif), "b.png": saved(colour.convert("P"), "PNG"),
        "c.png": saved(deep, "PNG"), "d.png": deep_colour(),
        "a.jpg": saved(colour, "JPEG", exif=exif),
        "b.jpg": saved(colour, "JPEG", progressive=True), "a.tif": saved(colour, "TIFF"),
        "b.tif": saved(colour, "TIFF", compression="tiff_lzw"),
        "c.tif": saved(deep, "TIFF", compression="tiff_deflate"),
        "d.tif": saved(colour, "TIFF", compression="jpeg"), "a.bmp": saved(colour, "BMP"),
        "a.webp": saved(colour, "WEBP", exif=exif), "b.webp": saved(colour, "WEBP", lossless=True),
    }  # fmt: skip


def deep_colour() -> bytes:
    from jernih.data.deep_png import encode_deep

    return encode_deep(np.random.default_rng(0).integers(0, 65535, (20, 30, 3), dtype=np.uint16))


def dicom_seeds() -> dict[str, bytes]:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import (
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        JPEGBaseline8Bit,
        SecondaryCaptureImageStorage,
        generate_uid,
    )

    found = {}
    jpeg = image_seeds()["a.jpg"]
    for name, syntax, pixels in (
        ("explicit", ExplicitVRLittleEndian, np.arange(1200, dtype=np.uint16).tobytes()),
        ("implicit", ImplicitVRLittleEndian, np.arange(1200, dtype=np.uint16).tobytes()),
        ("jpeg", JPEGBaseline8Bit, encapsulate([jpeg])),
    ):
        made = Dataset()
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = syntax
        made.SOPClassUID = SecondaryCaptureImageStorage
        made.SOPInstanceUID = generate_uid()
        bits = 8 if name == "jpeg" else 16
        made.Rows, made.Columns, made.BitsAllocated, made.BitsStored = 30, 40, bits, bits
        made.HighBit, made.PixelRepresentation = bits - 1, 0
        made.SamplesPerPixel = 3 if name == "jpeg" else 1
        made.PhotometricInterpretation = "YBR_FULL_422" if name == "jpeg" else "MONOCHROME2"
        if name == "jpeg":
            made.PlanarConfiguration = 0
        made.WindowCenter, made.WindowWidth, made.RescaleSlope, made.RescaleIntercept = (
            600,
            300,
            2,
            -3,
        )
        made.PatientName = "Invented^Person"
        made.PixelData = pixels
        stream = io.BytesIO()
        made.save_as(stream, enforce_file_format=True)
        found[f"{name}.dcm"] = stream.getvalue()
    return found


class Kit:
    """Good files of every kind, in a folder; and what a pickle would make if it were run."""

    def __init__(self, root: Path) -> None:
        from jernih.classifiers import load_classifier, save_classifier
        from jernih.data.manifest import Manifest, Record
        from jernih.defended import Defended
        from jernih.hub import write_defended
        from jernih.purifiers import PURIFIERS, save_purifier
        from jernih.weights import read_card

        self.root = root
        self.canary = root / "canary"
        (root / "files").mkdir(parents=True)
        for name, content in {**image_seeds(), **dicom_seeds()}.items():
            (root / "files" / name).write_bytes(content)
        records = tuple(
            Record(
                root / "files" / f"{name}.png",
                "ab"[k % 2],
                ("train", "val", "test")[k % 3],
                "",
                "0" * 64,
            )
            for k, name in enumerate("abcabc")
        )
        Manifest({"name": "folder"}, ("a", "b"), records, 0).save(root / "manifest")
        classifier = load_classifier("test_efficientnet", ["a", "b"])
        purifier = PURIFIERS.create("conv-autoencoder", widths=[4]).eval()
        write_defended(Defended(classifier, purifier).eval(), root / "package")
        (root / "weights").mkdir()
        save_purifier(purifier, root / "weights" / "purifier.safetensors")
        save_classifier(classifier, root / "weights" / "classifier.safetensors")
        for name in ("purifier", "classifier"):
            card = read_card(root / "weights" / f"{name}.safetensors")
            (root / "weights" / f"{name}.json").write_text(json.dumps(card))
        (root / "config.yaml").write_text(
            "title: fuzz\nout: runs/fuzz\nsample:\n  source: {name: folder, path: files}\n"
            "  split: {val: 0.1, test: 0.2}\nmodify: {size: 32, crops: {0: 16}}\nmodel:\n"
            "  classifier: {name: test_efficientnet}\n  epsilons: [0.01, 0.03]\n"
        )
        with tarfile.open(root / "shard.tar", "w") as shard:
            for name in ("a.png", "../b.png", "/tmp/c.png", "d/e.png", "d/e.cls"):  # noqa: S108
                member = tarfile.TarInfo(name)
                content = b"1" if name.endswith("cls") else image_seeds()["a.png"]
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            shard.addfile(link)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


_kit: Kit | None = None
_here: Path | None = None


def begin(root: str) -> None:
    """What a process has: the kit, a folder of its own, and its bound of memory."""
    global _kit, _here
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    kit = Kit.__new__(Kit)
    kit.root, kit.canary = Path(root), Path(root) / "canary"
    _kit, _here = kit, Path(tempfile.mkdtemp(dir=root))
    import jernih.bulk.archives
    import jernih.hub
    import jernih.pipeline  # noqa: F401

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def read_images(name: str, content: bytes, here: Path) -> None:
    from jernih.data.images import describe_image, read_image

    file = here / f"x{Path(name).suffix}"
    file.write_bytes(content)
    with contextlib.suppress(InputError):
        describe_image(file)
    image = read_image(file)
    if not (image.ndim == 3 and len(image) == 3 and image.min() >= 0 and image.max() <= 1):
        raise AssertionError(f"an image {tuple(image.shape)} of {image.min()} to {image.max()}")


def read_manifest(name: str, content: bytes, here: Path) -> None:
    from jernih.data.manifest import Manifest

    replaced(kit().root / "manifest", name, content, here / "manifest")
    Manifest.load(here / "manifest")


def read_config(name: str, content: bytes, here: Path) -> None:
    from jernih.config import load_config

    (here / "x.yaml").write_bytes(content)
    load_config(here / "x.yaml")


def read_package(name: str, content: bytes, here: Path) -> None:
    from jernih.hub import read_defended

    replaced(kit().root / "package", name, content, here / "package")
    read_defended(here / "package")


def read_weights_file(name: str, content: bytes, here: Path) -> None:
    """A file of weights, or the card in one: then the file around it is whole."""
    from jernih.classifiers import restore_classifier
    from jernih.purifiers import restore_purifier

    file = here / "x.safetensors"
    if name.endswith(".json"):
        good = load((kit().root / "weights" / name).with_suffix(".safetensors").read_bytes())
        content = save(good, {"jernih": content.decode("utf-8", "replace")})
    file.write_bytes(content)
    (restore_purifier if name.startswith("purifier") else restore_classifier)(file)


def read_checkpoint(name: str, content: bytes, here: Path) -> None:
    from jernih.classifiers import load_classifier, restore_classifier
    from jernih.purifiers import restore_purifier

    for ending in (".pt", ".ckpt", ".safetensors"):
        file = here / f"x{ending}"
        file.write_bytes(content)
        for read in (
            lambda file=file: restore_purifier(file),
            lambda file=file: restore_classifier(file),
            lambda file=file: load_classifier("test_efficientnet", ["a", "b"], weights=file),
        ):
            try:
                read()
            except InputError:
                continue
            raise AssertionError(f"a pickle was taken as {ending}")
    raise InputError("weights", "safetensors", "a pickle")


def read_shards(name: str, content: bytes, here: Path) -> None:
    from jernih.bulk.archives import read_shard
    from jernih.bulk.shards import find_shards

    file = here / f"x{Path(name).suffix}"
    file.write_bytes(content)
    for shard in find_shards(str(file)):
        for entry in read_shard(shard):
            entry.image()


def replaced(good: Path, name: str, content: bytes, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for file in good.iterdir():
        (folder / file.name).write_bytes(content if file.name == name else file.read_bytes())


def kit() -> Kit:
    if _kit is None:
        raise RuntimeError("no kit")
    return _kit


Target = tuple[Callable[[str, bytes, Path], None], Callable[[Kit], dict[str, bytes]], float]


def below(folder: str) -> Callable[[Kit], dict[str, bytes]]:
    return lambda kit: {f.name: f.read_bytes() for f in sorted((kit.root / folder).iterdir())}


def of_endings(*endings: str) -> Callable[[Kit], dict[str, bytes]]:
    return lambda kit: {k: v for k, v in below("files")(kit).items() if k.endswith(endings)}


TARGETS: dict[str, Target] = {
    "images": (read_images, of_endings(".png", ".jpg", ".tif", ".bmp", ".webp"), 0.45),
    "DICOM": (read_images, of_endings(".dcm"), 0.2),
    "manifests": (read_manifest, below("manifest"), 0.06),
    "configs": (read_config, lambda kit: {"x.yaml": (kit.root / "config.yaml").read_bytes()}, 0.1),
    "packaged models": (read_package, below("package"), 0.03),
    "weights": (read_weights_file, below("weights"), 0.04),
    "pickles as weights": (read_checkpoint, lambda kit: pickles(kit), 0.01),
    "shards": (read_shards, lambda kit: {"x.tar": (kit.root / "shard.tar").read_bytes()}, 0.05),
}
"""Reader, its good files, and its share of the inputs; the HTTP service has the rest."""


def pickles(kit: Kit) -> dict[str, bytes]:
    stream = io.BytesIO()
    torch.save({"state_dict": {"a": torch.ones(2)}, "trap": Trap(kit.canary)}, stream)
    return {"a.pt": pickle.dumps({"w": Trap(kit.canary)}), "b.pt": stream.getvalue()}


def chance_of(target: str, seed: int, number: int) -> random.Random:
    return random.Random(f"{target} {seed} {number}")  # noqa: S311 - damage, not secrets


def made(target: str, seed: int, number: int) -> tuple[str, bytes]:
    """The input of a number: its file's name and content."""
    seeds = TARGETS[target][1](kit())
    chance = chance_of(target, seed, number)
    name = chance.choice(sorted(seeds))
    return name, damaged(seeds[name], list(seeds.values()), chance)


def work(target: str, seed: int, numbers: list[int]) -> dict[str, Any]:
    """Read some inputs; how they ended, and what was no refusal."""
    ends: Counter[str] = Counter()
    findings: list[tuple[int, str]] = []
    slowest = 0.0
    for number in numbers:
        name, content = made(target, seed, number)
        start = time.monotonic()
        try:
            TARGETS[target][0](name, content, _here or Path())
            ends["accepted"] += 1
        except InputError:
            ends["refused"] += 1
        except MemoryError:
            ends["stopped"] += 1
            findings.append((number, "memory"))
        except Exception as error:
            if "allocate memory" in str(error):
                ends["stopped"] += 1
                findings.append((number, "memory"))
            else:
                ends["failed"] += 1
                findings.append((number, f"{type(error).__name__}: {str(error)[:150]}"))
        slowest = max(slowest, time.monotonic() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"ends": ends, "findings": findings, "slowest": slowest, "peak": peak}


def fuzz(target: str, count: int, seed: int, processes: Processes) -> dict[str, Any]:
    """All inputs of a target."""
    ends: Counter[str] = Counter()
    findings: list[tuple[int, str]] = []
    slowest = peak = 0.0

    def batch(numbers: list[int]) -> list[dict[str, Any]]:
        try:
            return [
                processes.do(work, target, seed, numbers, seconds=SECONDS * len(numbers) ** 0.5)
            ]
        except (TimeoutError, ProcessDied) as error:
            if len(numbers) == 1:
                slow = isinstance(error, TimeoutError)
                kind = "time" if slow else "death"
                end = Counter({"stopped" if slow else "died": 1})
                return [{"ends": end, "findings": [(numbers[0], kind)], "slowest": 0, "peak": 0}]
            return [row for number in numbers for row in batch([number])]

    batches = [list(range(k, min(k + BATCH, count))) for k in range(0, count, BATCH)]
    with ThreadPoolExecutor(processes.count) as pool:
        for rows in pool.map(batch, batches):
            for row in rows:
                ends.update(row["ends"])
                findings += row["findings"]
                slowest, peak = max(slowest, row["slowest"]), max(peak, row["peak"])
    return {
        "inputs": sum(ends.values()), **{k: ends[k] for k in ENDS},
        "slowest_ms": 1000 * slowest, "peak_mib": peak,
        "findings": findings[:50], "kinds": Counter(text for _, text in findings).most_common(20),
    }  # fmt: skip


def fuzz_http(count: int, seed: int) -> dict[str, Any]:
    """Damaged requests to a running service; how they were answered."""
    from jernih.answer import Answerer
    from jernih.classifiers import load_classifier
    from jernih.data.modify import Prepare
    from jernih.defended import Defended
    from jernih.purifiers import PURIFIERS
    from jernih.serve.app import build_app
    from jernih.serve.settings import ServeSettings

    purifier = PURIFIERS.create("identity").eval()
    classifier = load_classifier("test_efficientnet", ["a", "b"])
    answerer = Answerer(Defended(classifier, purifier, prepare=Prepare(32)).eval(), "cpu")
    good = requests(image_seeds()["a.jpg"])
    ends: Counter[str] = Counter()
    odd: Counter[str] = Counter()
    slowest = 0.0
    with serving(build_app(answerer, ServeSettings(receive_s=2, queue=256))) as port:

        def one(number: int) -> tuple[str, float]:
            chance = chance_of("http", seed, number)
            content = damaged(chance.choice(good), good, chance)
            start = time.monotonic()
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=60) as link:
                    link.sendall(content)
                    link.shutdown(socket.SHUT_WR)
                    said = b""
                    while piece := link.recv(65536):
                        said += piece
                        if len(said) > 10**7:
                            break
            except ConnectionError:
                return "closed", time.monotonic() - start
            except TimeoutError:
                return "no answer", time.monotonic() - start
            status = said[9:12].decode("latin-1") or "closed"
            if b"Traceback" in said:
                status = "trace"
            return status, time.monotonic() - start

        with ThreadPoolExecutor(8) as pool:
            for status, seconds in pool.map(one, range(count)):
                odd[status] += 1
                slowest = max(slowest, seconds)
                kind = "accepted" if status == "200" else "refused"
                bad = status in ("trace", "no answer") or (
                    status[0] == "5" and status not in ("503", "504", "505")
                )
                ends["failed" if bad else kind] += 1
        alive, _ = one(-1)
    return {
        "inputs": count, **{k: ends[k] for k in ENDS},
        "slowest_ms": 1000 * slowest, "peak_mib": 0, "findings": [], "kinds": odd.most_common(20),
        "alive": alive,
    }  # fmt: skip


def requests(image: bytes) -> list[bytes]:
    """Whole good requests, each on a connection of its own."""
    import base64

    def whole(path: str, kind: str, body: bytes, method: str = "POST") -> bytes:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\n"
        )
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    form = (
        b'--m\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
        + image
        + b"\r\n--m--\r\n"
    )
    text = base64.b64encode(image).decode()
    two = json.dumps({"images": [text, text]}).encode()
    tensor = {
        "inputs": [
            {"name": "images", "shape": [1, 3, 32, 32], "datatype": "FP32", "data": [0.5] * 3072}
        ]
    }
    return [
        whole("/v1/classify?areas=true", "multipart/form-data; boundary=m", form),
        whole("/v1/classify", "application/json", json.dumps({"image": text}).encode()),
        whole("/v1/classify", "image/jpeg", image),
        whole("/v1/classify/batch?restored=1", "application/json", two),
        whole("/v2/models/jernih/infer", "application/json", json.dumps(tensor).encode()),
        whole("/v2/models/jernih", "text/plain", b"", "GET"),
        whole("/metrics", "text/plain", b"", "GET"),
    ]  # fmt: skip


class serving:  # noqa: N801 - reads as a verb
    """An application on a free port of this machine, within a block; its port."""

    def __init__(self, app: Any) -> None:
        import uvicorn

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.server = uvicorn.Server(uvicorn.Config(app, port=self.port, log_level="critical"))

    def __enter__(self) -> int:
        import threading

        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        limit = time.monotonic() + 120
        while not self.server.started and time.monotonic() < limit:
            time.sleep(0.05)
        return self.port

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(30)


def run(
    inputs: int, seed: int = 0, workers: int = 1, keep: Path | None = None, http: bool = True
) -> dict[str, Any]:
    """Fuzz everything; a row for each target."""
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="jernih-fuzz-") as folder:
        root = Path(folder) / "kit"
        kit = Kit(root)
        before = {path.name for path in Path(folder).iterdir()}
        processes = Processes(workers, begin, (str(root),), tasks=200)
        try:
            for target, (_, _, share) in TARGETS.items():
                rows[target] = fuzz(target, max(1, int(inputs * share)), seed, processes)
                told(target, rows[target])
        finally:
            processes.close()
        if http:
            left = inputs - sum(row["inputs"] for row in rows.values())
            rows["HTTP"] = fuzz_http(max(1, left), seed)
            told("HTTP", rows["HTTP"])
        rows["files made by pickles"] = int(kit.canary.exists())
        rows["files made elsewhere"] = len({p.name for p in Path(folder).iterdir()} - before)
    return rows


def told(target: str, row: dict[str, Any]) -> None:
    numbers = "  ".join(f"{name} {row[name]}" for name in ("inputs", *ENDS))
    costs = f"slowest {row['slowest_ms']:.0f} ms  peak {row['peak_mib']:.0f} MiB"
    print(f"{target:20} {numbers}  {costs}", flush=True)
    for kind, count in row["kinds"]:
        print(f"    {count:6} {kind}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder for fuzz.json")
    arguments = parser.parse_args()
    rows = run(arguments.inputs, arguments.seed, arguments.workers)
    print({key: value for key, value in rows.items() if not isinstance(value, dict)})
    if arguments.out:
        machine = {"cores": os.cpu_count(), "python": platform.python_version()}
        write_json(
            arguments.out / "fuzz.json", {"rows": rows, "seed": arguments.seed, "machine": machine}
        )


if __name__ == "__main__":
    main()
