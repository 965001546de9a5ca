from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jernih.attack_files.formats import FORMATS, WORDS, Format, read, suffix, write
from jernih.randomness import generator


@pytest.mark.parametrize(
    ("file_format", "off"), [("png", 1 / 510), ("png16", 1 / 131070), ("npy", 0)]
)
def test_what_is_read_is_what_was_written_but_for_rounding(
    tmp_path: Path, file_format: Format, off: float
) -> None:
    image = torch.rand(3, 9, 7, generator=generator("formats"))
    path = tmp_path / "deeper" / f"image{suffix(file_format)}"
    write(path, image, file_format)
    again = read(path, file_format)
    assert again.dtype is torch.float32
    assert again.shape == image.shape
    apart = float((again - image).abs().max())
    assert 0.9 * off <= apart <= off + 1e-7


def test_all_formats_have_words() -> None:
    assert set(FORMATS) == set(WORDS)
