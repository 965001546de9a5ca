"""DICOM files as images: one greyscale or colour frame, shown as its own window says."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array
from torch import Tensor

from jernih.data.unreadable import ImageFacts, UnreadableImage, why_unreadable

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# What pydicom and its decoders raise on damaged files.
_ERRORS = (
    ArithmeticError, AttributeError, BytesLengthException, EOFError, LookupError, OSError,
    RuntimeError, TypeError, ValueError, struct.error,
)  # fmt: skip


def read_dicom(path: str | os.PathLike[str]) -> Tensor:
    """Read a DICOM file as float32 (3, H, W) in [0, 1].

    Greyscale goes through the modality LUT (or rescale slope and intercept) and then the first
    window, or the VOI LUT where there is no window; the output range of either becomes [0, 1].
    Without both, the range of the stored bits becomes [0, 1], so that equal values give equal grey
    in every file; a file that uses little of its range then looks dark, and Explore says so.
    MONOCHROME1, in which small values are bright, is inverted. RGB and YBR colour is divided by
    its largest value.

    Args:
        path: the file; 8 to 16 bits, signed or not, uncompressed or in a compression that the
            installed decoders read.

    Raises:
        UnreadableImage: for a file that is absent, not DICOM or damaged, has no pixels or several
            frames, or whose compression or colour space is not supported.

    Source:
        DICOM PS3.3, C.11.1 (modality LUT) and C.11.2 (VOI LUT and windows).
    """
    with _refusing(path):
        with _opened(path) as file:
            header = dcmread(file)
        _check(path, header)
        try:
            pixels = pixel_array(header)
        except ValueError as error:
            if "broadcast" in str(error):
                raise UnreadableImage(path, "not as many pixels as its header says") from None
            raise
        if header.PhotometricInterpretation in _GREY:
            shown = _displayed(pixels, header)
            if header.PhotometricInterpretation == "MONOCHROME1":
                np.subtract(1, shown, out=shown)
            shown = shown[None].astype(np.float32)
        else:
            shown = pixels.transpose(2, 0, 1).astype(np.float32)
            shown /= 2**header.BitsStored - 1
        if not np.isfinite(shown).all():
            raise UnreadableImage(path, "pixels that are not finite")
        image = torch.from_numpy(shown.clip(0, 1, out=shown))
        return image.expand(3, -1, -1).contiguous()


def describe_dicom(path: str | os.PathLike[str]) -> ImageFacts:
    """Read a DICOM file's header only.

    Raises:
        UnreadableImage: when there is none to read, or it tells of no pixels.
    """
    with _refusing(path):
        with _opened(path) as file:
            header = dcmread(file, stop_before_pixels=True)
        if "Rows" not in header or "Columns" not in header:
            raise UnreadableImage(path, "a DICOM file without pixels")
        mode = f"{header.PhotometricInterpretation}, {header.BitsAllocated} bits"
        return ImageFacts(int(header.Columns), int(header.Rows), mode, "DICOM")


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """The file as a map into memory.

    A file's own reader asks for as many bytes as a damaged length says: gigabytes.
    """
    with Path(path).open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as found:
        yield found


@contextmanager
def _refusing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what pydicom raises into one reason, and keep its warnings about oddities in."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UnreadableImage:
        raise
    except InvalidDicomError as error:
        empty = Path(path).stat().st_size == 0
        reason = why_unreadable(path, error) if empty else "not a DICOM file"
        raise UnreadableImage(path, reason) from None
    except RecursionError:
        raise UnreadableImage(path, "sequences nested too deeply") from None
    except _ERRORS as error:
        raise UnreadableImage(path, why_unreadable(path, error)) from None


def _check(path: str | os.PathLike[str], header: Dataset) -> None:
    """Refuse what has no single right reading, or none at all."""
    if not any(name in header for name in _PIXELS):
        raise UnreadableImage(path, "a DICOM file without pixels")
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        raise UnreadableImage(path, f"{frames} frames; one is expected")
    colour = str(header.PhotometricInterpretation)
    if colour not in _GREY + _COLOUR:
        raise UnreadableImage(path, f"photometric interpretation {colour}, which is not supported")
    if Image.MAX_IMAGE_PIXELS and header.Rows * header.Columns > Image.MAX_IMAGE_PIXELS:
        raise UnreadableImage(path, "more pixels than is safe to decode")
    syntax = header.file_meta.TransferSyntaxUID
    try:
        supported = get_decoder(syntax).is_available
    except NotImplementedError:
        supported = False
    if not supported:
        raise UnreadableImage(path, f"compressed as {syntax.name}, which is not supported")


def _displayed(pixels: NDArray[Any], header: Dataset) -> NDArray[np.float64]:
    """Greyscale (H, W) as the file wants it shown, from 0 for the least value to 1."""
    # pydicom looks values up in the type they come in, which may be too narrow for the table.
    wide = pixels if pixels.dtype.kind == "f" else pixels.astype(np.int32)
    values = apply_modality_lut(wide, header)
    if None not in (header.get("WindowCenter"), header.get("WindowWidth")):
        # The window itself tells its output range: what infinities are mapped to.
        ends = apply_voi_lut(np.array([-np.inf, np.inf]), header, prefer_lut=False)
        low, high = float(ends[0]), float(ends[1])
        values = apply_voi_lut(values, header, prefer_lut=False)
    elif header.get("VOILUTSequence"):
        table = header.VOILUTSequence[0]
        entries, first, depth = table.LUTDescriptor
        low, high = 0.0, 2.0**depth - 1
        # Likewise, tables with entries of 8 bits would be looked up in by 8 bits.
        table.LUTDescriptor = [entries, first, 16]
        index = np.rint(values).clip(first, first + (entries or 2**16) - 1).astype(int)
        values = apply_voi_lut(index, header)
    else:
        low, high = _span(header)
    scaled: NDArray[np.float64] = values.astype(np.float64)
    scaled -= low
    scaled /= (high - low) or 1.0
    return scaled


def _span(header: Dataset) -> tuple[float, float]:
    """The least and the greatest value that the stored bits allow, after the modality LUT."""
    if header.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** header.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    bits = int(header.BitsStored)
    stored = [0, 2**bits - 1]
    if header.PixelRepresentation:
        stored = [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1]
    low, high = sorted(float(v) for v in apply_modality_lut(np.array(stored), header))
    return low, high
