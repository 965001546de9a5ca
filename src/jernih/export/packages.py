"""The optional packages that files in ONNX need."""

from __future__ import annotations

import importlib
from typing import Any

from jernih.validate import InputError


def need(*names: str) -> Any:
    """Import optional packages and return the first.

    Raises:
        InputError: for one that is not installed, with the command that installs it.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            wanted = "what pip install 'jernih[onnx]' installs"
            raise InputError("packages", wanted, f"no {name.partition('.')[0]}") from None
    return importlib.import_module(names[0])
