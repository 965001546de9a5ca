"""Freed memory stays with the process, in a process of its own: it cannot be taken back."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from jernih.memory import keep_freed_memory
done = keep_freed_memory() if sys.argv[1] == "keep" else None
faults = []
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    several = [torch.ones(2**24) for _ in range(4)]
    del several
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(done, faults[-1])
"""


def faults(argument: str, **environment: str) -> tuple[str, int]:
    """What the call returned, and the page faults of four more tensors of 64 MiB."""
    known = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "LD_PRELOAD"))}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", SCRIPT, argument],
        env=known | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    told, count = done.stdout.split()
    return told, int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_freed_memory_is_used_again() -> None:
    told, kept = faults("keep")
    _, without = faults("let go")
    assert told == "True"
    assert kept < 0.1 * without


def test_the_environment_has_the_last_word() -> None:
    told, _ = faults("keep", MALLOC_ARENA_MAX="4")
    assert told == "False"


GROWN = """
import torch
from jernih.memory import give_back_freed_memory, keep_freed_memory
keep_freed_memory()
held = [torch.ones(2**20) for _ in range(64)]
del held
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4 // 1024
before = resident()
give_back_freed_memory()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_what_is_free_can_be_given_back() -> None:
    known = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "LD_PRELOAD"))}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", GROWN], env=known, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 200
