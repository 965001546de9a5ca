"""A folder of class folders, with or without train, val and test above them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from jernih.data.sources.base import SOURCES, SPLIT_NAMES, DataSource, Item, existing
from jernih.validate import InputError

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (
    ".bmp", ".dcm", ".dicom", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp",
)  # fmt: skip


@SOURCES.register("folder")
class Folder(DataSource):
    """Class folders of images: ``path/CLASS/…``, or ``path/train/CLASS/…`` and so on.

    Files and folders whose name starts with a dot are passed over.

    Args:
        path: the folder.
        patient_pattern: regular expression with one group, which is the patient wherever it
            matches in a file's name.
        suffixes: file names that count as images, by their endings in either case.

    Raises:
        InputError: for an absent folder, one without class folders, a class folder without
            images, a pattern without a group, or no suffixes.
    """

    def __init__(
        self,
        path: str | Path,
        patient_pattern: str | None = None,
        suffixes: Sequence[str] = IMAGE_SUFFIXES,
    ) -> None:
        self.path = path
        if isinstance(suffixes, str) or not suffixes:
            raise InputError("suffixes", "a list such as ['.png', '.jpg']", repr(suffixes))
        self.suffixes = tuple("." + str(suffix).lower().lstrip(".") for suffix in suffixes)
        self.pattern = None if patient_pattern is None else patient_regex(patient_pattern)

    def find(self, workdir: Path) -> Iterator[Item]:
        """Yield the images of every class folder."""
        root = existing(self.path, "path", folder=True)
        folders = _folders(root)
        splits = [f for f in folders if f.name.lower() in SPLIT_NAMES]
        if not splits:
            yield from self._classes(root, None)
            return
        others = [f.name for f in folders if f not in splits]
        if others:
            raise InputError(
                f"folder {root}", "class folders, or train, val and test only", ", ".join(others)
            )
        for split in splits:
            yield from self._classes(split, SPLIT_NAMES[split.name.lower()])

    def _classes(self, root: Path, split: str | None) -> Iterator[Item]:
        folders = _folders(root)
        if not folders:
            raise InputError(f"folder {root}", "a folder for each class", "none")
        loose = sum(f.is_file() and f.suffix.lower() in self.suffixes for f in root.iterdir())
        if loose:
            log.warning("%d images beside the class folders of %s are left out", loose, root)
        for folder in folders:
            files = [
                file
                for file in folder.rglob("*")
                if file.is_file()
                and file.suffix.lower() in self.suffixes
                and not any(part.startswith(".") for part in file.relative_to(root).parts)
            ]
            if not files:
                raise InputError(f"class folder {folder}", "at least one image", "none")
            for file in files:
                yield Item(file, folder.name, split, patient_of(file.name, self.pattern))


def patient_regex(pattern: str) -> re.Pattern[str]:
    """Compile a pattern with one group.

    Raises:
        InputError: when it does not compile or has another number of groups.
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise InputError("patient_pattern", "a regular expression", error) from None
    if compiled.groups != 1:
        raise InputError("patient_pattern", "one group in brackets", repr(pattern))
    return compiled


def patient_of(name: str, pattern: re.Pattern[str] | None) -> str:
    """Return the patient that a file's name tells, or an empty string."""
    found = pattern.search(name) if pattern is not None else None
    return (found.group(1) or "") if found else ""


def _folders(root: Path) -> list[Path]:
    return sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
