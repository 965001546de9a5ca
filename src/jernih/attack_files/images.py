"""Which images to attack: a folder, a table, or any registered data source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jernih.data.manifest import SPLITS
from jernih.data.sample import draw
from jernih.data.sources import SOURCES, DataSource, Item
from jernih.randomness import derive_seed
from jernih.validate import InputError, check_choice, check_count, nearest

_TABLES = (".csv", ".parquet", ".pq")


@dataclass(frozen=True)
class Images:
    """The images to attack.

    Attributes:
        items: files with their labels, sorted by path.
        classes: the label space of the source they are from.
        source: the source and what was taken of it, as plain data.
    """

    items: tuple[Item, ...]
    classes: tuple[str, ...]
    source: dict[str, Any]


def find_source(
    data: str, labels: str | None = None, options: Mapping[str, Any] | None = None
) -> DataSource:
    """The data source that a path or a name stands for.

    Args:
        data: a folder of class folders (with or without train, val and test above them); a folder
            of images with one table beside them, or with ``manifest.csv``; a table; or the name of
            a registered source.
        labels: a table of labels for the images of the folder ``data``.
        options: further options of the source.

    Raises:
        InputError: for anything else, and what the source itself refuses.
    """
    given = dict(options or {})
    place = Path(data).expanduser()
    if labels is not None:
        if not place.is_dir():
            raise InputError("data", "a folder, since labels are given apart", data)
        return SOURCES.create("table", path=labels, root=str(place), **given)
    if place.is_dir():
        table = _table_in(place)
        if table is not None:
            return SOURCES.create("table", path=str(table), **given)
        return SOURCES.create("folder", path=str(place), **given)
    if place.suffix.lower() in _TABLES:
        return SOURCES.create("table", path=data, **given)
    if data in SOURCES:
        return SOURCES.create(data, **given)
    like = None if len(place.parts) > 1 else nearest(data, SOURCES.names())
    raise InputError(
        "data",
        f"a folder, a table ({', '.join(_TABLES)}) or a source ({', '.join(SOURCES)})",
        repr(data),
        f"nearest: {like!r}" if like else "no such folder or file",
    )


def find_images(
    source: DataSource,
    workdir: Path,
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Images:
    """Find the images of a source, or a part of them.

    Args:
        source: where they come from.
        workdir: folder for a source that makes or fetches files.
        split: take only this split of the source's own.
        limit: draw at most this many, with the classes in proportion.
        seed: seed of the draw.

    Raises:
        InputError: for a source without images (of the split), and a limit below one.
    """
    items = source(workdir)
    classes = source.classes([item.label for item in items])
    taken: dict[str, Any] = {"source": source.describe()}
    if split is not None:
        check_choice("split", split, SPLITS)
        known = sorted({item.split or "none" for item in items})
        items = [item for item in items if item.split == split]
        taken["split"] = split
        if not items:
            raise InputError("split", f"one that the data has ({', '.join(known)})", repr(split))
    if limit is not None:
        drawn = draw(
            [item.label for item in items],
            check_count("limit", limit),
            derive_seed(seed, "limit", "attack files"),
        )
        items = [items[place] for place in drawn]
        taken["limit"] = limit
    return Images(tuple(items), classes, taken)


def _table_in(folder: Path) -> Path | None:
    """The table beside the images of a folder that has no class folders."""
    if (folder / "manifest.csv").is_file():
        return folder / "manifest.csv"
    inside = [file for file in folder.iterdir() if not file.name.startswith(".")]
    if any(file.is_dir() for file in inside):
        return None
    tables = sorted(file for file in inside if file.suffix.lower() in _TABLES)
    if len(tables) == 1:
        return tables[0]
    found = ", ".join(table.name for table in tables) or "neither"
    raise InputError(
        f"data {folder}", "class folders, or one table of labels", found, "name it with --labels"
    )
