"""Reading and writing weights: safetensors files and nothing that can carry code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from jernih.storage import atomic_path
from jernih.validate import InputError


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Raises:
        InputError: when the file is absent, of another format, or damaged.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError("weights", "an existing .safetensors file", str(file))
    if file.suffix != ".safetensors":
        raise InputError(
            "weights", "a .safetensors file", str(file), "pickled checkpoints can run code"
        )
    try:
        return load_file(file)
    except (SafetensorError, ValueError, OSError) as error:
        raise InputError(f"weights {file}", "a whole safetensors file", str(error)) from None


def read_card(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the plain data that :func:`write_weights` put beside the tensors."""
    with safe_open(Path(path), framework="pt") as file:
        text = (file.metadata() or {}).get("jernih", "{}")
    try:
        card = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"weights {path}", "a card in JSON in its header", error) from None
    if not isinstance(card, dict):
        raise InputError(f"weights {path}", "a card of key and value pairs", type(card).__name__)
    return card


def write_weights(
    path: str | os.PathLike[str],
    module: nn.Module,
    card: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a module's parameters and buffers, atomically, with plain data in the header.

    With ``dtype``, such as float16, floating-point tensors are stored in it.

    Raises:
        InputError: when a finite value is too large for ``dtype``.
    """
    state = module.state_dict()
    if dtype is not None:
        for name, value in state.items():
            if value.is_floating_point():
                state[name] = value.to(dtype)
                if bool((state[name].isinf() & value.isfinite()).any()):
                    raise InputError(f"dtype of {name}", "one that holds its values", dtype)
    return write_tensors(path, state, card)


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write tensors by name, atomically, with plain data in the header."""
    state = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"jernih": json.dumps(dict(card or {}))})
    return Path(path)


def load_into(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    optional_prefix: str | None = None,
) -> None:
    """Copy tensors into a module, in float32, demanding that names and shapes agree.

    Args:
        module: receives the tensors.
        state: the tensors by name.
        source: where they came from, for an error.
        optional_prefix: layers under this name (a classification head) may differ in shape, and
            then keep their initial values.

    Raises:
        InputError: naming the first few tensors that are absent, superfluous or of another shape.
    """
    own = module.state_dict()
    usable = dict(state)
    if optional_prefix is not None:
        head = {name for name in own if name.startswith(f"{optional_prefix}.")}
        if any(name in usable and usable[name].shape != own[name].shape for name in head):
            usable = {name: value for name, value in usable.items() if name not in head}
            own = {name: value for name, value in own.items() if name not in head}
    absent = [name for name in own if name not in usable and "num_batches_tracked" not in name]
    extra = [name for name in usable if name not in own]
    unlike = [name for name in own if name in usable and usable[name].shape != own[name].shape]
    for names, fault in ((absent, "lacks"), (extra, "has unknown"), (unlike, "differs in shape")):
        if names:
            shown = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
            raise InputError(
                f"weights {source}", "the network's tensors", f"one that {fault}: {shown}"
            )
    module.load_state_dict({k: v.to(own[k].dtype) for k, v in usable.items()}, strict=False)
