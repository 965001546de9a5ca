"""A table of images: one row a file, with its label and, where known, split and patient."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from jernih.data.sources.base import (
    SOURCES,
    SPLIT_NAMES,
    DataSource,
    Item,
    check_columns,
    existing,
    listed,
    read_rows,
)
from jernih.validate import InputError


@SOURCES.register("table")
class Table(DataSource):
    """A CSV or Parquet file with a row for each image.

    Every value is read as text, so that a label 01 stays 01; blanks around it are dropped. Rows
    count from 1, the first after the header.

    Args:
        path: the table.
        root: folder that relative paths start from; the table's own folder when not given. Files
            outside it have to be named by absolute paths.
        path_column: column of the files' paths.
        label_column: column of the class names.
        split_column: column of the splits (train, val, valid, validation, test; empty: to be
            chosen). A table without a column ``split`` leaves all of them to be chosen.
        patient_column: column of the patients. A table without a column ``patient`` knows none.
        classes: all class names in the order of the class indices; without it the labels present,
            sorted.

    Raises:
        InputError: for an absent or unreadable table, a missing column, and rows with an empty
            label, a label outside ``classes``, an unknown split, a missing file, or a file that
            an earlier row named.
    """

    def __init__(
        self,
        path: str | Path,
        root: str | Path | None = None,
        path_column: str = "path",
        label_column: str = "label",
        split_column: str = "split",
        patient_column: str = "patient",
        classes: Sequence[str] | None = None,
    ) -> None:
        self.path, self.root = path, root
        self.path_column, self.label_column = path_column, label_column
        self.split_column, self.patient_column = split_column, patient_column
        if isinstance(classes, str):
            raise InputError("classes", "a list of class names", repr(classes))
        self.label_space = tuple(str(label) for label in classes or ())
        if classes is not None and not self.label_space:
            raise InputError("classes", "at least one class name", "none")
        if len(set(self.label_space)) < len(self.label_space):
            raise InputError("classes", "each class name once", ", ".join(self.label_space))

    def find(self, workdir: Path) -> Iterator[Item]:
        """Yield a checked item for each row."""
        table = existing(self.path, "path", folder=False)
        root = existing(self.root or table.parent, "root", folder=True)
        rows = self._rows(table)
        labels = [row[self.label_column] for row in rows]
        self._refuse(table, "a label", [not label for label in labels], labels)
        if self.label_space:
            unknown = [label not in self.label_space for label in labels]
            self._refuse(table, f"a label among {listed(self.label_space)}", unknown, labels)
        splits = [row.get(self.split_column, "").lower() for row in rows]
        wrong = [split not in SPLIT_NAMES and split != "" for split in splits]
        self._refuse(table, "a split: train, val, test or empty", wrong, splits)
        entries = [row[self.path_column] for row in rows]
        self._refuse(table, "a path", [not entry for entry in entries], entries)
        files = [Path(os.path.normpath(root / entry)) for entry in entries]
        outside = [
            not Path(entry).is_absolute() and not file.is_relative_to(os.path.normpath(root))
            for entry, file in zip(entries, files, strict=True)
        ]
        self._refuse(table, f"a path within {root} (or an absolute path)", outside, entries)
        self._refuse(table, "an existing file", [not file.is_file() for file in files], files)
        first = {file: number for number, file in reversed(list(enumerate(files)))}
        again = [first[file] != number for number, file in enumerate(files)]
        self._refuse(table, "each file once", again, entries)
        for file, label, split, row in zip(files, labels, splits, rows, strict=True):
            patient = row.get(self.patient_column, "")
            yield Item(file, label, SPLIT_NAMES[split] if split else None, patient)

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the classes given, or those present."""
        return self.label_space or super().classes(labels)

    def _rows(self, table: Path) -> list[dict[str, str]]:
        required = [self.path_column, self.label_column]
        required += [self.split_column] if self.split_column != "split" else []
        required += [self.patient_column] if self.patient_column != "patient" else []
        if table.suffix.lower() == ".csv":
            return read_rows(table, required)
        if table.suffix.lower() not in (".parquet", ".pq"):
            raise InputError(f"table {table}", "a file ending in .csv or .parquet", table.suffix)
        try:
            frame = pd.read_parquet(table)
        except (OSError, ValueError) as error:
            raise InputError(f"table {table}", "a readable Parquet file", error) from None
        names = [str(name) for name in frame.columns]
        check_columns(table, names, required)
        return [
            {
                name: "" if value is None or pd.isna(value) else str(value).strip()
                for name, value in zip(names, values, strict=True)
                if pd.api.types.is_scalar(value)
            }
            for values in frame.itertuples(index=False, name=None)
        ]

    def _refuse(
        self, table: Path, expected: str, wrong: Sequence[bool], values: Sequence[object]
    ) -> None:
        """Raise for the rows that are wrong, the first of them by number and value."""
        found = [
            f"row {number}: {str(value)!r}"
            for number, (bad, value) in enumerate(zip(wrong, values, strict=True), start=1)
            if bad
        ]
        if found:
            raise InputError(f"table {table}", expected, listed(found))
