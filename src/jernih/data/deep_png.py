"""PNG files with colour of 16 bits a channel, which Pillow neither writes nor reads at their depth.

The format is that of the W3C's PNG specification (third edition). Interlaced files are left out.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {2: 3, 6: 4}
"""Channels by PNG's number for the kind of pixels: colour, colour with alpha."""
_TURNS = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image.swapaxes(0, 1)[::-1],
}


def encode_deep(pixels: NDArray[np.uint16]) -> bytes:
    """The PNG file of a colour image, uint16 (H, W, 3)."""
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(">u2"))  # 0: no filter
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def read_deep(path: str | os.PathLike[str]) -> NDArray[np.uint16] | None:
    """The colour, uint16 (H, W, 3), in a PNG file of 16-bit colour; None for any other file.

    Alpha is dropped. Checksums are not looked at: Pillow does that.

    Raises:
        ValueError: for a file that is cut.
    """
    with Path(path).open("rb") as stream:
        head = stream.read(29)
        if head[:8] != _SIGNATURE or len(head) < 29:
            return None
        width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", head[16:])
        if depth != 16 or kind not in _CHANNELS or interlaced:
            return None
        file = head + stream.read()
    apart = 2 * _CHANNELS[kind]  # bytes from a pixel to the next
    size = height * (1 + width * apart)
    packed = b"".join(data for name, data in _chunks(file) if name == b"IDAT")
    try:
        content = zlib.decompressobj().decompress(packed, size)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(content) != size:
        raise ValueError("too few pixels")
    rows = np.frombuffer(content, np.uint8).reshape(height, 1 + width * apart)
    whole = _unfiltered(rows[:, 0], rows[:, 1:].reshape(height, width, apart))
    return whole.view(">u2").astype(np.uint16)[..., :3]


def turn(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """The image (H, W, 3) upright, given its EXIF orientation."""
    turned: NDArray[Any] = _TURNS.get(orientation, lambda as_it_is: as_it_is)(image)
    return turned


def _chunks(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place + 12 <= len(file):
        size, name = struct.unpack(">I4s", file[place : place + 8])
        yield name, file[place + 8 : place + 8 + size]
        place += 12 + size


def _unfiltered(filters: NDArray[np.uint8], rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Undo the filters (H,) of the rows (H, W, bytes), diagonal by diagonal.

    A pixel is foretold from those to the left, above, and above to the left, so that the pixels of
    one diagonal do not depend on each other.
    """
    if not filters.any():
        return rows
    height, width, _ = rows.shape
    known = np.zeros((height + 1, width + 1, rows.shape[2]), np.int16)
    for diagonal in range(height + width - 1):
        y = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        x = diagonal - y
        left, above, corner = known[y + 1, x], known[y, x + 1], known[y, x]
        guess = left + above - corner
        off = np.stack([abs(guess - near) for near in (left, above, corner)])
        paeth = np.choose(off.argmin(0), [left, above, corner])
        choices = [np.zeros_like(left), left, above, (left + above) // 2, paeth]
        foretold = np.choose(filters[y, None], choices)
        known[y + 1, x + 1] = (rows[y, x] + foretold) & 255
    return np.ascontiguousarray(known[1:, 1:].astype(np.uint8))
