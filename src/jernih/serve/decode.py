"""From the bytes of a request to an image, or one clear sentence why not."""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from jernih.data.images import UnreadableImage
from jernih.data.untrusted import TooCostly, TooManyPixels, UntrustedImages
from jernih.serve.errors import Refused
from jernih.validate import InputError

KINDS: dict[str, tuple[bytes, ...]] = {
    ".png": (b"\x89PNG\r\n\x1a\n",),
    ".jpg": (b"\xff\xd8\xff",),
    ".bmp": (b"BM",),
    ".tif": (b"II*\0", b"MM\0*"),
    ".webp": (b"RIFF",),
}
"""How the files that are taken begin, by their ending; DICOM has its mark further in."""
NAMES = "PNG, JPEG, TIFF, BMP, WebP or DICOM"


def kind_of(content: bytes) -> str:
    """What a file is by its first bytes, as an ending such as ``".png"``.

    Raises:
        Refused: for an empty file, another kind, and one that is of two kinds at once.
    """
    if not content:
        raise Refused(422, "empty", "The image is empty.")
    found = [end for end, marks in KINDS.items() if content.startswith(marks)]
    if found == [".webp"] and content[8:12] != b"WEBP":
        found = []
    if content[128:132] == b"DICM":
        found.append(".dcm")
    if len(found) > 1:
        raise Refused(422, "ambiguous", "The file is an image of two kinds at once.")
    if not found:
        raise Refused(415, "unknown_type", f"The file is not a {NAMES} image.")
    end = content.rfind(b"IEND")
    if found == [".png"] and end >= 0 and len(content) > end + 8:
        raise Refused(422, "ambiguous", "There is more in the file after the end of the image.")
    return found[0]


def decode_image(
    content: bytes, images: UntrustedImages, prepare: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Read an encoded image as float32 (3, H, W) in [0, 1].

    The size is read from the file's header first: an image that is too large is never unpacked.

    Args:
        content: the file.
        images: who reads it, within bounds of time and memory.
        prepare: what is done to the image before it comes back.

    Raises:
        Refused: for what is no image, is damaged or too large, or has no single right reading.
    """
    ending = kind_of(content)
    with tempfile.TemporaryDirectory(prefix="jernih-serve-") as folder:
        file = Path(folder) / f"image{ending}"
        file.write_bytes(content)
        try:
            return images.read(file, prepare)
        except TooManyPixels as error:
            message = f"The image has {error.reason}."
            raise Refused(413, "too_many_pixels", message) from None
        except TooCostly as error:
            message = f"The image is not read: {error.reason}."
            raise Refused(413, "too_costly", message) from None
        except UnreadableImage as error:
            reason = error.reason.replace(str(file), "").replace(folder, "")
            if "exceeds limit" in reason or "more pixels" in reason:  # Pillow's own limit
                message = f"The image has more than {images.max_pixels:,} pixels."
                raise Refused(413, "too_many_pixels", message) from None
            raise Refused(422, "unreadable", f"The image cannot be read: {reason}.") from None
        except InputError as error:
            raise Refused(422, "invalid", f"The image cannot be used: {error}.") from None


def decode_base64(text: object) -> bytes:
    """The bytes of a base64 string or of a ``data:`` address.

    Raises:
        Refused: for an address of another kind, which is never fetched, and for what is not base64.
    """
    if not isinstance(text, str):
        raise Refused(422, "invalid", 'The field "image" has to be a base64 string.')
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise Refused(422, "invalid", "A data: address has to be in base64.")
    elif "://" in text[:16]:
        raise Refused(422, "no_urls", "Addresses are not fetched: send the image itself.")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(422, "invalid", "The image is not valid base64.") from None
