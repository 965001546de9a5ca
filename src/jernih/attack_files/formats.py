"""How attacked images are written: in whole grey levels, finely, or exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from jernih.data.images import read_image, write_png
from jernih.storage import atomic_path

Format = Literal["png", "png16", "npy"]
"""PNG of 8 or of 16 bits a channel, or NumPy's file of the float32 values (3, H, W)."""

FORMATS: tuple[str, ...] = get_args(Format)
"""How attacked images can be written."""

WORDS: dict[Format, str] = {"png": "8-bit PNG", "png16": "16-bit PNG", "npy": "NumPy file"}


def suffix(format_: Format) -> str:
    """The ending of the files' names."""
    return ".npy" if format_ == "npy" else ".png"


def write(path: Path, image: Tensor, format_: Format) -> None:
    """Write an image (3, H, W) in [0, 1], atomically."""
    if format_ == "npy":
        with atomic_path(path) as temporary:
            np.save(temporary, image.cpu().numpy())
    else:
        write_png(path, image, bits=16 if format_ == "png16" else 8)


def read(path: Path, format_: Format) -> Tensor:
    """Read what :func:`write` wrote: float32 (3, H, W) in [0, 1]."""
    if format_ == "npy":
        return torch.from_numpy(np.load(path, allow_pickle=False))
    return read_image(path)
