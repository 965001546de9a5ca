"""Memory that tensors free, kept for the next ones."""

from __future__ import annotations

import ctypes
import os
import platform

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h
_keeping = [False]
_CHOSEN = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Let the C library keep what tensors free, for the rest of the process.

    glibc gives large blocks back to the system at once, and for each tensor of the next step takes
    fresh pages, which are cleared one by one. Kept, the process stays as large as it was at its
    peak, and steps on a CPU take as little as half the time. The commands of ``jernih`` do this;
    as a library, jernih leaves the process alone.

    Returns:
        whether it was done: not without glibc, and not where the environment chooses how memory is
        allocated.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(_CHOSEN) for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    done = bool(mallopt(_MMAP_THRESHOLD, 2**30)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
    _keeping[0] = done
    return done


def give_back_freed_memory() -> None:
    """Give the system what is free now, where :func:`keep_freed_memory` keeps it.

    What is kept falls to pieces over hundreds of batches, and the process grows, though it uses no
    more. Long loops call this now and then; it costs the next batch some tens of milliseconds.
    """
    if _keeping[0]:
        ctypes.CDLL(None).malloc_trim(0)
