"""Garbage that learns: inputs grown by what code they reach (atheris, from libFuzzer).

    python benchmarks/fuzz_guided.py --runs 20000 --out benchmarks/results

`benchmarks/fuzz.py` damages good files blindly; here the same readers, with the Python code of
Jernih, pydicom and PyYAML instrumented, are given what reached new branches, changed further. Each
kind of file has a process of its own, with 1 GiB beyond what it begins with and 5 s an input.
Refusals in words (`InputError`) are as it should be; anything else ends that kind's process, is
told, and its input kept. Needs `pip install atheris`; Linux.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

KINDS = ("manifests", "configs", "packaged models", "shards", "DICOM", "images")
INSTRUMENTED = ["jernih", "yaml", "pydicom"]


def guided(kind: str, root: Path, corpus: Path, runs: int) -> None:
    """Fuzz one kind in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        import fuzz
        import pydicom.filereader  # noqa: F401

        import jernih.bulk.archives
        import jernih.config
        import jernih.data.dicom
        import jernih.data.images
        import jernih.data.manifest
        import jernih.hub  # noqa: F401
        from jernih.validate import InputError
    fuzz.begin(str(root))
    read, good, _ = fuzz.TARGETS[kind]
    seeds = good(fuzz.kit())
    names = sorted(seeds)
    for number, name in enumerate(names):
        (corpus / f"seed-{number}").write_bytes(bytes([number]) + seeds[name])
    here = Path(tempfile.mkdtemp(dir=root))

    def one(content: bytes) -> None:
        if not content:
            return
        try:
            read(names[content[0] % len(names)], content[1:], here)
        except (InputError, MemoryError):
            return
        except Exception as error:
            if "allocate memory" not in str(error):
                raise

    for seed in sorted(corpus.iterdir()):
        one(seed.read_bytes())  # the first time much is imported, which is not the input's fault
    options = [f"-runs={runs}", "-timeout=5", "-rss_limit_mb=0", "-max_len=60000", "-seed=1"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={corpus}/", str(corpus)], one)
    atheris.Fuzz()


def started(kind: str, runs: int, folder: Path) -> dict[str, Any]:
    corpus = folder / kind.replace(" ", "-")
    corpus.mkdir(parents=True)
    command = [sys.executable, __file__, "--runs", str(runs), "--kind", kind]
    done = subprocess.run(  # noqa: S603
        [*command, "--folder", str(folder)], capture_output=True, text=True, check=False
    )
    said = done.stderr
    counts = [int(found) for found in re.findall(r"^#(\d+)", said, re.MULTILINE)]
    reached = [int(found) for found in re.findall(r"cov: (\d+)", said)]
    finding = done.returncode != 0
    kept = [file.read_bytes()[:2000].hex() for file in sorted(corpus.glob("crash-*"))]
    kept += [file.read_bytes()[:2000].hex() for file in sorted(corpus.glob("timeout-*"))]
    return {
        "kind": kind,
        "inputs": max(counts, default=0),
        "branches_at_first": reached[0] if reached else 0,
        "branches": reached[-1] if reached else 0,
        "finding": said[-1500:] if finding else None,
        "input": kept,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20_000, help="inputs of each kind")
    parser.add_argument("--only", help="one kind")
    parser.add_argument("--out", type=Path, help="folder for fuzz_guided.json")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.kind:
        root = arguments.folder / "kit"
        corpus = arguments.folder / arguments.kind.replace(" ", "-")
        guided(arguments.kind, root, corpus, arguments.runs)
        return
    import fuzz

    from jernih.storage import write_json

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        kit = fuzz.Kit(Path(folder) / "kit")
        for kind in KINDS:
            if arguments.only not in (None, kind):
                continue
            row = started(kind, arguments.runs, Path(folder))
            rows.append(row)
            reached = f"branches {row['branches_at_first']:,} -> {row['branches']:,}"
            outcome = f"FOUND {row['finding']}" if row["finding"] else "nothing found"
            print(f"{kind:16} {row['inputs']:8,} inputs, {reached}, {outcome}", flush=True)
        made = kit.canary.exists()
    print("files made by pickles:", int(made))
    if arguments.out:
        machine = {"cores": os.cpu_count(), "python": platform.python_version()}
        told = {"rows": rows, "files made by pickles": int(made), "machine": machine}
        write_json(arguments.out / "fuzz_guided.json", told)


if __name__ == "__main__":
    main()
