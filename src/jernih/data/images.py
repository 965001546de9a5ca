"""From a file to an image: float32 (3, H, W) in [0, 1], or one clear reason why not.

Greyscale becomes three equal channels, 16-bit greyscale keeps its depth, and so does 16-bit colour
in PNG (interlaced, and in other formats, it is read at 8 bits), floating-point greyscale has to be
in [0, 1], CMYK and other colour spaces become RGB, opaque alpha is dropped, and the EXIF
orientation is applied. What has no single right reading is refused: transparent pixels, animations
and several pages.
"""

from __future__ import annotations

import os
import struct
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from jernih.data.deep_png import encode_deep, read_deep, turn
from jernih.data.unreadable import ImageFacts, UnreadableImage, why_unreadable
from jernih.storage import atomic_path
from jernih.validate import check_images

__all__ = [
    "ImageFacts",
    "UnreadableImage",
    "describe_image",
    "read_image",
    "why_unreadable",
    "write_png",
]


# What Pillow raises on damaged files.
_ERRORS = (
    ArithmeticError, AttributeError, EOFError, LookupError, OSError, SyntaxError, TypeError,
    ValueError, struct.error,
)  # fmt: skip


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Read an image as float32 (3, H, W) in [0, 1].

    Raises:
        UnreadableImage: for a file that is absent, no image, truncated, too large (Pillow's limit),
            animated, or partly transparent.
    """
    if _is_dicom(Path(path)):
        from jernih.data.dicom import read_dicom

        return read_dicom(path)
    with warnings.catch_warnings():
        # Pillow's remarks on odd metadata say nothing about the pixels.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as image:
                return _to_tensor(path, image)
        except UnreadableImage:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise UnreadableImage(path, "more pixels than is safe to decode") from None
        except _ERRORS as error:
            raise UnreadableImage(path, why_unreadable(path, error)) from None


def describe_image(path: str | os.PathLike[str]) -> ImageFacts:
    """Read a file's header only.

    Raises:
        UnreadableImage: when there is none to read.
    """
    if _is_dicom(Path(path)):
        from jernih.data.dicom import describe_dicom

        return describe_dicom(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return ImageFacts(image.width, image.height, image.mode, image.format or "")
    except (Image.DecompressionBombError, *_ERRORS) as error:
        raise UnreadableImage(path, why_unreadable(path, error)) from None


def write_png(path: str | os.PathLike[str], image: Tensor, *, bits: Literal[8, 16] = 8) -> Path:
    """Write an image (3, H, W) in [0, 1] as a PNG of 8 or 16 bits a channel, atomically.

    Rounding to 8 bits changes every pixel by up to 1/510, which can undo small perturbations; to
    16 bits, by up to 1/131070. Many programs read 16-bit colour at 8 bits; :func:`read_image` does
    not.
    """
    scaled = check_images(image.unsqueeze(0))[0].double() * (2**bits - 1)
    pixels = scaled.round().permute(1, 2, 0).cpu().numpy()
    with atomic_path(path) as temporary:
        if bits == 16:
            temporary.write_bytes(encode_deep(pixels.astype(np.uint16)))
        else:
            Image.fromarray(pixels.astype(np.uint8)).save(temporary, format="PNG")
    return Path(path)


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() in (".dcm", ".dicom"):
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _to_tensor(path: str | os.PathLike[str], image: Image.Image) -> Tensor:
    turned: Image.Image
    if _goes_on(image):
        raise UnreadableImage(path, "several frames or pages; one is expected")
    image.load()
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    ImageOps.exif_transpose(image, in_place=True)
    turned = image
    deep = turned.mode in ("I", "F") or turned.mode.startswith("I;16")
    if deep and turned.info.get("transparency") is not None:
        clear = bool((np.asarray(turned) == turned.info["transparency"]).any())
    elif not deep and turned.has_transparency_data:
        turned = turned.convert("RGBA")
        clear = np.asarray(turned.getchannel("A")).min() < 255
    else:
        clear = False
    if clear:
        raise UnreadableImage(path, "transparent pixels, whose colour is undefined")
    if deep:
        return _deep_grey(path, turned)
    if image.format == "PNG" and (colour := read_deep(path)) is not None:
        upright = turn(colour, orientation)
        planes = np.ascontiguousarray(upright.transpose(2, 0, 1)).astype(np.float32)
        return torch.from_numpy(planes).div_(65535)
    rgb = np.asarray(turned if turned.mode == "RGB" else turned.convert("RGB"))
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1)).astype(np.float32)
    return torch.from_numpy(planes).div_(255)


def _goes_on(image: Image.Image) -> bool:
    """Whether there is a second frame; counting them all may take minutes."""
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def _deep_grey(path: str | os.PathLike[str], image: Image.Image) -> Tensor:
    """Greyscale of 16 bits or floating point, without losing depth."""
    pixels = np.asarray(image).astype(np.float32)
    if image.mode != "F":
        pixels /= 65535
    if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
        expected = "[0, 1]" if image.mode == "F" else "[0, 65535]"
        raise UnreadableImage(path, f"grey values outside {expected}")
    grey = torch.from_numpy(pixels)
    return grey.expand(3, -1, -1).contiguous()
