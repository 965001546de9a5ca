"""ImageNet-style files, whose names begin with the class."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from jernih.data.sources.base import SOURCES, DataSource, Item, existing, read_rows
from jernih.data.sources.folder import IMAGE_SUFFIXES
from jernih.validate import InputError


@SOURCES.register("imagenet")
class ImageNet(DataSource):
    """Files named ``wnid_name.JPEG`` in one folder; the class is the WordNet id before the bar.

    Args:
        path: the folder.
        classes_file: CSV with the columns ``index`` and ``wnid`` that gives the whole label space
            in the order of the classifier's outputs. Without it the ids present are the classes,
            sorted. The ids stand for the classes because the names (crane, maillot) come twice.

    Raises:
        InputError: for an absent folder or file, a file name of another form, or an id that the
            classes file lacks.
    """

    def __init__(self, path: str | Path, classes_file: str | Path | None = None) -> None:
        self.path = path
        self.classes_file = classes_file

    def find(self, workdir: Path) -> Iterator[Item]:
        """Yield the images of the folder."""
        root = existing(self.path, "path", folder=True)
        known = set(self._label_space())
        for file in root.iterdir():
            if file.suffix.lower() not in IMAGE_SUFFIXES or file.name.startswith("."):
                continue
            found = re.match(r"(n\d{8})_", file.name)
            if found is None:
                raise InputError(f"file {file}", "a name such as n01440764_tench.JPEG", file.name)
            if known and found.group(1) not in known:
                raise InputError(f"file {file}", f"a class of {self.classes_file}", found.group(1))
            yield Item(file, found.group(1))

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the ids of the classes file, or those present."""
        return self._label_space() or super().classes(labels)

    def _label_space(self) -> tuple[str, ...]:
        if self.classes_file is None:
            return ()
        file = existing(self.classes_file, "classes_file", folder=False)
        try:
            ordered = sorted(
                (int(row["index"]), row["wnid"]) for row in read_rows(file, ("index", "wnid"))
            )
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"classes file {file}", "whole numbers as indices", error) from None
        if [index for index, _ in ordered] != list(range(len(ordered))) or not ordered:
            raise InputError(f"classes file {file}", "indices 0, 1, 2 … without gaps", "others")
        if len({wnid for _, wnid in ordered}) < len(ordered):
            raise InputError(f"classes file {file}", "each wnid once", "one that comes again")
        return tuple(wnid for _, wnid in ordered)
