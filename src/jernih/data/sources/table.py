"""A table that names each image, its label and perhaps its split and patient."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from jernih.data.sources.base import SOURCES, SPLIT_NAMES, DataSource, Item, existing
from jernih.validate import InputError, check_choice


@SOURCES.register("table")
class Table(DataSource):
    """A CSV or Parquet file with a row for each image.

    Every value is taken as text, so that "01" and "NA" are labels like any other. Errors count the
    rows from 1, without the header.

    Args:
        path: the table; a name that ends in ``.parquet`` is Parquet, any other CSV in UTF-8.
        root: folder that relative paths start from; by default the table's own.
        path_column: column of the images' paths. A relative path must not lead out of ``root``.
        label_column: column of the labels.
        split_column: column of the splits (train, val or test; also valid and validation); a
            table without the column "split" leaves the split to the plan.
        patient_column: column of the patients; a table without the column "patient" names none.
        classes: the label space in the order of the class indices; by default the labels present,
            sorted.

    Raises:
        InputError: for an absent or unreadable table, an absent column, an empty path or label, a
            label outside ``classes``, another split, or an absent image.
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
        self.path = path
        self.root = root
        self.path_column = path_column
        self.label_column = label_column
        self.split_column = split_column
        self.patient_column = patient_column
        self.label_space = None if classes is None else tuple(map(str, classes))
        if classes is not None and not 0 < len(set(classes)) == len(classes):
            raise InputError("classes", "names that differ", list(classes))

    def find(self, workdir: Path) -> Iterator[Item]:
        """Yield the image of every row."""
        file = existing(self.path, "path", folder=False)
        root = existing(file.parent if self.root is None else self.root, "root", folder=True)
        table = read_table(file)
        paths = filled(table, self.path_column, file)
        labels = filled(table, self.label_column, file)
        splits = _optional(table, self.split_column, "split", file)
        patients = _optional(table, self.patient_column, "patient", file) or [""] * len(paths)
        for row, (path, label, patient) in enumerate(
            zip(paths, labels, patients, strict=True), start=1
        ):
            if self.label_space is not None and label not in self.label_space:
                check_choice(f"row {row} of {file}", label, self.label_space)
            split = None
            if splits is not None:
                split = SPLIT_NAMES.get(splits[row - 1].strip().lower())
                if split is None:
                    wanted = "a split among train, val and test"
                    raise InputError(f"row {row} of {file}", wanted, repr(splits[row - 1]))
            yield Item(_inside(root, path, f"row {row} of {file}"), label, split, patient)

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the given classes, or the labels present."""
        return self.label_space or super().classes(labels)


def read_table(file: Path) -> pd.DataFrame:
    """Read a CSV or Parquet file with every value as text; what is absent becomes "".

    Raises:
        InputError: when it is neither or has no rows.
    """
    try:
        if file.suffix.lower() == ".parquet":
            table = pd.read_parquet(file, dtype_backend="numpy_nullable").astype(object)
            table = table.where(table.notna(), "").map(str)
        else:
            table = pd.read_csv(
                file, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig"
            )
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        raise InputError(f"table {file}", "a CSV or Parquet file", error) from None
    if table.empty:
        raise InputError(f"table {file}", "at least one row", "none")
    return table


def column(table: pd.DataFrame, name: str, file: Path) -> list[str]:
    """Return the values of a column.

    Raises:
        InputError: when there is none of that name, with the nearest that there is.
    """
    check_choice(f"column of {file}", name, [str(known) for known in table.columns])
    return [str(value) for value in table[name]]


def filled(table: pd.DataFrame, name: str, file: Path) -> list[str]:
    """Return the values of a column in which every row has one.

    Raises:
        InputError: when there is no such column or a value is empty, with the first such row.
    """
    values = column(table, name, file)
    empty = [row for row, value in enumerate(values, start=1) if not value.strip()]
    if empty:
        raise InputError(
            f"row {empty[0]} of {file}", f"a value for {name!r}", "none", f"{len(empty)} such rows"
        )
    return values


def _optional(table: pd.DataFrame, name: str, default: str, file: Path) -> list[str] | None:
    """A column that may be absent, unless it was asked for by a name of its own."""
    return None if name == default and name not in table.columns else column(table, name, file)


def _inside(root: Path, path: str, row: str) -> Path:
    """The absolute path of an image that exists and, where the path is relative, is in the root."""
    place = Path(os.path.normpath(root / path))
    if not Path(path).is_absolute() and not place.is_relative_to(os.path.normpath(root)):
        raise InputError(row, f"a path within {root}", path)
    if not place.is_file():
        raise InputError(row, "an existing file", place)
    return place
