"""Files that would cost a process its time or its memory."""

from __future__ import annotations

import os
import signal
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from jernih.data.images import UnreadableImage, read_image, write_png
from jernih.data.modify import Prepare
from jernih.data.untrusted import TooCostly, TooManyPixels, UntrustedImages
from jernih.randomness import generator


@pytest.fixture(scope="module")
def images() -> Iterator[UntrustedImages]:
    found = UntrustedImages(max_pixels=20_000_000, seconds=20, memory=400 * 2**20, processes=1)
    yield found
    found.close()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    noise = torch.rand(3, 40, 60, generator=generator("untrusted"))
    return write_png(tmp_path / "good.png", noise)


def many_pages(file: Path, pages: int = 200_000) -> Path:
    """A TIFF whose pages each point at the next, so that counting them takes its time."""
    entries = [
        (256, 3, 8), (257, 3, 8), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 0), (277, 3, 1),
        (278, 3, 8), (279, 4, 64),
    ]  # fmt: skip
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    size = 2 + len(body) + 4
    parts = [b"II*\0" + struct.pack("<I", 8)]
    for page in range(pages):
        following = 0 if page == pages - 1 else 8 + size * (page + 1)
        parts.append(struct.pack("<H", len(entries)) + body + struct.pack("<I", following))
    file.write_bytes(b"".join(parts))
    return file


def many_scans(file: Path) -> Path:
    """A progressive JPEG that goes over its pixels two thousand times."""
    Image.new("L", (4000, 4000), 90).save(file, "JPEG", progressive=True)
    content = file.read_bytes()
    last = content[content.rfind(b"\xff\xda") : -2]
    file.write_bytes(content[:-2] + last * 2000 + b"\xff\xd9")
    return file


def deflated(file: Path, gibibytes: int = 1) -> Path:
    """A DICOM file of a few megabytes with gigabytes of zeros in it."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_file_meta_info
    from pydicom.uid import (
        DeflatedExplicitVRLittleEndian,
        SecondaryCaptureImageStorage,
        generate_uid,
    )

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    head = DicomBytesIO()
    head.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(head, meta)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = b"\0" * 2**20
    packed = [packer.compress(zeros) for _ in range(1024 * gibibytes)]
    file.write_bytes(head.getvalue() + b"".join(packed) + packer.flush())
    return file


def test_an_image_is_read_as_without_bounds(images: UntrustedImages, good: Path) -> None:
    assert torch.equal(images.read(good), read_image(good))
    assert torch.equal(images.read(good, Prepare(32)), Prepare(32)(read_image(good)))


def test_an_image_that_is_too_large_is_not_unpacked(tmp_path: Path, good: Path) -> None:
    small = UntrustedImages(max_pixels=2399, processes=1)
    try:
        with pytest.raises(TooManyPixels, match="60 × 40 pixels, more than 2,399"):
            small.read(good)
    finally:
        small.close()


def test_what_is_no_image_says_why(images: UntrustedImages, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(UnreadableImage, match="not an image in a known format") as error:
        images.read(tmp_path / "a.png")
    assert error.value.reason == "not an image in a known format"


def test_time_has_a_bound(tmp_path: Path, good: Path) -> None:
    hasty = UntrustedImages(seconds=2, processes=1)
    try:
        with pytest.raises(TooCostly, match="longer than 2 s"):
            hasty.read(many_scans(tmp_path / "scans.jpg"))
        assert hasty.read(good).shape == (3, 40, 60)
    finally:
        hasty.close()


def test_memory_has_a_bound(images: UntrustedImages, tmp_path: Path, good: Path) -> None:
    with pytest.raises(TooCostly, match="more than 400 MiB of memory"):
        images.read(deflated(tmp_path / "zeros.dcm"))
    assert images.read(good).shape == (3, 40, 60)


def test_a_chain_of_pages_does_not_hang(images: UntrustedImages, tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage):
        images.read(many_pages(tmp_path / "pages.tif"))


def test_a_process_that_is_ended_from_outside_is_replaced(
    images: UntrustedImages, good: Path
) -> None:
    first = images._processes.do(os.getpid)
    os.kill(first, signal.SIGKILL)
    time.sleep(0.5)
    assert images.read(good).shape == (3, 40, 60)
    assert images._processes.do(os.getpid) != first


@pytest.mark.parametrize(
    "given", [{"seconds": 0}, {"memory": 0}, {"processes": 0}, {"max_pixels": 0}]
)
def test_bounds_that_are_none_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(given))):
        UntrustedImages(**given)
