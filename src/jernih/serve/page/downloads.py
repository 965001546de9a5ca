"""Files for people to download, which go after an hour."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
import time
from pathlib import Path

KEPT = 3600.0
"""Seconds."""


@functools.cache
def _root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="jernih-page-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


def new_folder(kept: float = KEPT) -> Path:
    """A new folder of this process; those older than ``kept`` seconds go."""
    for folder in _root().iterdir():
        if time.time() - folder.stat().st_mtime > kept:
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=_root()))
