"""Which device to work on."""

from __future__ import annotations

import torch

from jernih.validate import InputError, check_choice


def pick_device(wanted: str = "auto") -> str:
    """``"cuda"`` where there is such a device and it is not declined, else ``"cpu"``.

    Args:
        wanted: ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises:
        InputError: for another name, and for ``"cuda"`` where there is none.
    """
    check_choice("device", wanted, ("auto", "cpu", "cuda"))
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise InputError("device", "a CUDA device on this machine", "none found")
    return "cuda" if there and wanted != "cpu" else "cpu"
