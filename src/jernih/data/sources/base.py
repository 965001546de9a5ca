"""What every data source shares: finding images and their labels."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jernih.data.manifest import SPLITS
from jernih.registry import Configured, Registry
from jernih.validate import InputError, nearest

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What folders, tables and hubs call the splits, and what they are called here."""


@dataclass(frozen=True)
class Item:
    """One image as a source names it.

    Attributes:
        path: the file.
        label: name of its class.
        split: "train", "val" or "test" where the source says so.
        patient: whom it shows, where the source says so.
    """

    path: Path
    label: str
    split: str | None = None
    patient: str = ""


class DataSource(Configured, ABC):
    """Somewhere images and labels come from.

    Calling a source finds its images and checks that each is a file with a label. A subclass
    writes only :meth:`find`, and :meth:`classes` where the label space is larger than what is
    there.
    """

    def __call__(self, workdir: Path) -> list[Item]:
        """Find all images.

        Args:
            workdir: folder for a source that makes or fetches files.

        Returns:
            the images with absolute paths, sorted by path.

        Raises:
            InputError: when there are none, a file is absent or named twice, or a label is empty.
        """
        found = (replace(i, path=i.path.absolute()) for i in self.find(Path(workdir)))
        items = sorted(found, key=lambda item: str(item.path))
        if not items:
            raise InputError(f"source {self.name!r}", "at least one image", "none", self.place())
        for number, item in enumerate(items):
            if number and item.path == items[number - 1].path:
                raise InputError(f"source {self.name!r}", "each file once", f"{item.path} twice")
            if not item.path.is_file():
                raise InputError(f"source {self.name!r}", "an existing file", item.path)
            if not item.label:
                raise InputError(f"source {self.name!r}", f"a label for {item.path}", "none")
            if item.split is not None and item.split not in SPLITS:
                raise InputError(
                    f"source {self.name!r}", f"a split among {', '.join(SPLITS)}", item.split
                )
        return items

    @abstractmethod
    def find(self, workdir: Path) -> Iterable[Item]:
        """Yield the images in any order."""

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the label space, in the order of the class indices, given the labels present."""
        return tuple(sorted(set(labels)))

    def describe(self) -> dict[str, Any]:
        """The name and the options as plain data, paths as text."""
        given = {k: str(v) for k, v in self.options.items() if isinstance(v, Path)}
        return super().describe() | given

    def place(self) -> str:
        """Where the source looks, for an error."""
        return str(self.options.get("path", ""))


def existing(path: str | Path, argument: str, *, folder: bool) -> Path:
    """Return an absolute path that exists and is a folder, or a file.

    Raises:
        InputError: otherwise.
    """
    try:
        place = Path(path).expanduser().absolute()
    except (TypeError, RuntimeError):
        raise InputError(argument, "a path", repr(path)) from None
    if folder and not place.is_dir():
        raise InputError(argument, "an existing folder", place)
    if not folder and not place.is_file():
        raise InputError(argument, "an existing file", place)
    return place


def listed(things: Sequence[object]) -> str:
    """The first three things, and how many there are when there are more."""
    text = ", ".join(str(thing) for thing in things[:3])
    return text if len(things) <= 3 else f"{text}, … ({len(things)} in all)"


def check_columns(table: Path, names: Sequence[str], required: Sequence[str]) -> None:
    """Check that a table has the columns it needs.

    Raises:
        InputError: naming those absent and what they may have been mistaken for.
    """
    absent = [column for column in required if column not in names]
    if absent:
        alike = [f"{near!r}" for column in absent if (near := nearest(column, names))]
        raise InputError(
            f"table {table}",
            f"the columns {', '.join(required)}",
            f"none called {', '.join(absent)} among {listed(names) or 'no columns'}",
            f"nearest: {', '.join(alike)}" if alike else "",
        )


def read_rows(table: Path, required: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV file with a header as text, without the blanks around the values.

    Raises:
        InputError: when it is not CSV, lacks a required column, or has a row of another length.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            names = [name.strip() for name in next(reader, [])]
            rows = [[value.strip() for value in row] for row in reader if row]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"table {table}", "a readable CSV file", error) from None
    check_columns(table, names, required)
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names):
            raise InputError(f"table {table}, row {number}", f"{len(names)} values", len(row))
    return [dict(zip(names, row, strict=True)) for row in rows]


SOURCES: Registry[DataSource] = Registry("source")
"""All data sources by name."""
