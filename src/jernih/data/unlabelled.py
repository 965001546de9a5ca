"""Images of which nobody says what they show, to train purifiers with."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from jernih.data.manifest import Record
from jernih.data.modify import ImageDataset
from jernih.data.sources.folder import IMAGE_SUFFIXES
from jernih.validate import InputError


def unlabelled_files(folder: str | os.PathLike[str], argument: str = "unlabelled") -> list[Path]:
    """The image files of a folder and its subfolders, in alphabetical order.

    Raises:
        InputError: when there is no such folder, or no image in it.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise InputError(argument, "an existing folder", root)
    files = sorted(f for f in root.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise InputError(argument, "a folder with images", root)
    return files


def with_unlabelled(dataset: ImageDataset, files: list[Path]) -> ImageDataset:
    """A data set with further images after its own.

    They count as the first class, since a data set knows no image without one: only what asks
    for no labels may work on them.
    """
    manifest = dataset.manifest
    more = tuple(Record(file, manifest.classes[0], "train", "", "") for file in files)
    return ImageDataset(
        replace(manifest, records=(*manifest.records, *more)),
        dataset.prepare,
        dataset.augment,
        dataset.crops,
    )
