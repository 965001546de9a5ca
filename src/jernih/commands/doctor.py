"""``jernih doctor``: what is here, and what is missing."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Mapping
from importlib import metadata
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

EXTRAS = {
    "serve": ("fastapi", "uvicorn", "python-multipart", "prometheus-client", "gradio"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "dicom": ("pynetdicom", "highdicom"),
    "hub": ("datasets",),
    "ray": ("ray", "fsspec"),
}
"""Packages that parts of Jernih need, by the name of the extra that installs them."""
NEEDED = ("torch", "torchvision", "timm", "lightning", "torchmetrics", "safetensors", "pydicom")


def examine() -> dict[str, Any]:
    """Versions, devices, weights and missing packages, as plain data."""
    import torch

    from jernih import __version__
    from jernih.shipped import shipped_card, shipped_names, shipped_weights
    from jernih.storage import sha256_file

    weights = {
        name: "whole"
        if sha256_file(shipped_weights(name)) == shipped_card(name).get("sha256")
        else "damaged"
        for name in shipped_names()
    }
    disk = shutil.disk_usage(".")
    cuda = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    found: dict[str, Any] = {
        "jernih": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in NEEDED},
        "extras": {
            extra: {name: _version(name) for name in names} for extra, names in EXTRAS.items()
        },
        "cuda": cuda,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bfloat16": _bfloat16(),
        "memory_gib": _memory(),
        "disk_free_gib": round(disk.free / 2**30, 1),
        "weights": weights,
    }
    absent = [name for name, version in found["packages"].items() if version is None]
    faults = [f"the package {name} is missing: pip install jernih" for name in absent]
    faults += [
        f"the weights {name} are damaged: install jernih again"
        for name, state in weights.items()
        if state != "whole"
    ]
    found["faults"] = faults
    return found


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Plain data instead of a table.")] = False,
) -> None:
    """Show what is here and what is missing; fails where something essential is."""
    found = examine()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        _show(found)
    if found["faults"]:
        raise typer.Exit(1)


def _show(found: dict[str, Any]) -> None:
    console = Console()
    table = Table("what", "found", title="jernih doctor")
    table.add_row("jernih", found["jernih"])
    table.add_row("Python", f"{found['python']}, {found['system']}")
    for name, version in found["packages"].items():
        table.add_row(name, version or "[bold]missing[/bold]")
    table.add_row("CUDA devices", ", ".join(found["cuda"]) or "none: the CPU is used")
    table.add_row("cores, threads", f"{found['cores']}, {found['threads']}")
    hardware = {True: "in hardware", False: "not in hardware", None: "not known"}
    table.add_row("bfloat16 on the CPU", hardware[found["bfloat16"]])
    table.add_row("memory", f"{found['memory_gib']} GiB")
    table.add_row("free disk here", f"{found['disk_free_gib']} GiB")
    for name, state in found["weights"].items():
        table.add_row(f"weights {name}", state)
    for extra, packages in found["extras"].items():
        absent = [name for name, version in packages.items() if version is None]
        state = "installed"
        if absent:
            state = f"without {', '.join(absent)}: pip install 'jernih\\[{extra}]'"
        table.add_row(f"extra {extra}", state)
    console.print(table)
    for fault in found["faults"]:
        console.print(f"[bold red]fault[/bold red]: {fault}", highlight=False)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _bfloat16() -> bool | None:
    """Whether the processor multiplies bfloat16 itself; None where torch does not tell."""
    import torch

    told: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    known = [told[name] for name in ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16") if name in told]
    return any(known) if known else None


def _memory() -> float | None:
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not on Windows
        return None
    return round(pages * size / 2**30, 1)
