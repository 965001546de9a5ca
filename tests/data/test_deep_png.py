"""16-bit colour in PNG: what is written comes back, and so does what other programs filter."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from jernih.data.deep_png import encode_deep, read_deep, turn
from jernih.data.images import UnreadableImage, read_image

RNG = np.random.default_rng(0)
COLOUR: NDArray[np.uint16] = RNG.integers(0, 65536, (20, 30, 3), dtype=np.uint16)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def filtered(pixels: NDArray[np.uint16], filters: list[int], *more: tuple[bytes, bytes]) -> bytes:
    """A PNG whose rows are filtered in turn, written pixel by pixel as the specification says."""
    height, width, channels = pixels.shape
    apart = 2 * channels
    plain = [list(row.astype(">u2").tobytes()) for row in pixels]
    lines = b""
    for y, row in enumerate(plain):
        above = plain[y - 1] if y else [0] * len(row)
        kind = filters[y % len(filters)]
        line = [kind]
        for x, value in enumerate(row):
            a, b = row[x - apart] if x >= apart else 0, above[x]
            c = above[x - apart] if x >= apart else 0
            p = a + b - c
            paeth = min((a, b, c), key=lambda near: abs(p - near))
            line.append((value - [0, a, b, (a + b) // 2, paeth][kind]) % 256)
        lines += bytes(line)
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if channels == 3 else 6, 0, 0, 0)
    packed = zlib.compress(lines)
    half = len(packed) // 2
    chunks = [(b"IHDR", header), *more, (b"IDAT", packed[:half]), (b"IDAT", packed[half:])]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in [*chunks, (b"IEND", b"")])


def put(folder: Path, content: bytes) -> Path:
    path = folder / "image.png"
    path.write_bytes(content)
    return path


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    file = encode_deep(COLOUR)
    read = read_deep(put(tmp_path, file))
    assert read is not None
    np.testing.assert_array_equal(read, COLOUR)
    with Image.open(io.BytesIO(file)) as image:  # others read it as well, at 8 bits
        assert np.abs(np.asarray(image) - (COLOUR / 257)).max() < 1


@pytest.mark.parametrize("filters", [[0], [1], [2], [3], [4], [4, 3, 2, 1, 0]])
@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (1, 5), (5, 1)])
def test_filters_are_undone(tmp_path: Path, filters: list[int], shape: tuple[int, int]) -> None:
    smooth = np.add.outer(np.arange(shape[0]) * 700, np.arange(shape[1]) * 300)[..., None]
    pixels = (smooth + RNG.integers(0, 20000, (*shape, 3))).astype(np.uint16)
    file = filtered(pixels, filters)
    with Image.open(io.BytesIO(file)) as image:
        assert np.abs(np.asarray(image) - (pixels / 257)).max() < 1
    read = read_deep(put(tmp_path, file))
    assert read is not None
    np.testing.assert_array_equal(read, pixels)


def test_opaque_alpha_is_dropped_and_other_alpha_refused(tmp_path: Path) -> None:
    deep = np.dstack([COLOUR, np.full((20, 30), 65535, np.uint16)])
    (tmp_path / "opaque.png").write_bytes(filtered(deep, [4]))
    read = read_image(tmp_path / "opaque.png").permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(np.rint(read * 65535), COLOUR)
    deep[3, 4, 3] = 7
    (tmp_path / "clear.png").write_bytes(filtered(deep, [4]))
    with pytest.raises(UnreadableImage, match="transparent"):
        read_image(tmp_path / "clear.png")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_pillow_turns(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    shallow = (COLOUR >> 8).astype(np.uint8)
    Image.fromarray(shallow).save(tmp_path / "shallow.png", exif=exif)
    tag = (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "deep.png").write_bytes(filtered((shallow * np.uint16(257)), [0], tag))
    expected = read_image(tmp_path / "shallow.png")
    assert np.allclose(read_image(tmp_path / "deep.png").numpy(), expected.numpy(), atol=1e-7)


def test_orientations_that_do_not_exist_turn_nothing() -> None:
    assert turn(COLOUR, 0) is COLOUR
    assert turn(COLOUR, 9) is COLOUR


def test_other_files_are_left_to_pillow(tmp_path: Path) -> None:
    Image.fromarray((COLOUR >> 8).astype(np.uint8)).save(tmp_path / "shallow.png")
    assert read_deep(tmp_path / "shallow.png") is None
    assert read_deep(put(tmp_path, b"no image")) is None
    interlaced = bytearray(encode_deep(COLOUR))
    interlaced[28] = 1
    assert read_deep(put(tmp_path, bytes(interlaced))) is None


def test_cut_files_are_refused(tmp_path: Path) -> None:
    file = encode_deep(COLOUR)
    for size in (40, 100, len(file) // 2):
        with pytest.raises(ValueError, match=r".+"):
            read_deep(put(tmp_path, file[:size]))
        with pytest.raises(UnreadableImage):
            read_image(tmp_path / "image.png")
