"""What readers of files share: facts of a header, and why a file is no image."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from PIL import UnidentifiedImageError

from jernih.validate import InputError


class UnreadableImage(InputError):  # noqa: N818 - named for what it is about
    """A file that is no image, is damaged, or has no single right reading.

    Attributes:
        reason: what is wrong with it, in a few words.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"image {path}", "a readable image", reason)
        self.reason = reason


@dataclass(frozen=True)
class ImageFacts:
    """What a file's header says: size in pixels, colour mode and format."""

    width: int
    height: int
    mode: str
    format: str


def why_unreadable(path: str | os.PathLike[str], error: Exception) -> str:
    """Say in a few words why a file could not be read, given what a decoder raised."""
    path = Path(path)
    if not path.exists():
        return "no such file"
    if path.is_dir():
        return "a folder"
    if path.stat().st_size == 0:
        return "an empty file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    return str(error).replace(str(path), "").strip() or type(error).__name__
