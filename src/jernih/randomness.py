"""Seeds: every random choice in Jernih comes from a generator that one of these made."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2⁶³) that depends on every part, such as ``(seed, "train", epoch, index)``.

    Example:
        >>> derive_seed(0, "train") == derive_seed(0, "train")
        True
        >>> derive_seed(0, "train") == derive_seed(1, "train")
        False
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by :func:`derive_seed` of the parts."""
    return torch.Generator().manual_seed(derive_seed(*parts))


@contextlib.contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Run a block under a known global torch seed and put the old state back afterwards.

    For library code that takes no generator, such as weight initialisation and dropout.
    """
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive_seed(*parts))
        yield
