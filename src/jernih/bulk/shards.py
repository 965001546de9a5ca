"""Shards of an archive: what they are, and how they are found.

A shard is the piece of work that is done as a whole: a tar file in the layout of WebDataset, a
Parquet file, or a number of the files of a folder. Paths may be local or what fsspec understands
(``s3://…``, ``gs://…``, ``memory://…``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import fsspec

from jernih.storage import fingerprint
from jernih.validate import InputError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm")
FILES_A_SHARD = 256

Kind = Literal["tar", "parquet", "folder"]


@dataclass(frozen=True)
class Shard:
    """A piece of an archive.

    Attributes:
        name: its name, under which its outcome is kept.
        kind: what it is.
        paths: the file, or the files of a folder.
        root: what the names of a folder's files are relative to.
        twins: those of ``paths`` that another file differs from by its ending alone.
        version: a fingerprint of the files' names, sizes and, where the store tells them, times or
            tags; another one means that the shard is no longer the same.
    """

    name: str
    kind: Kind
    paths: tuple[str, ...]
    root: str = ""
    twins: tuple[str, ...] = ()
    version: str = ""


def find_shards(source: str) -> list[Shard]:
    """The shards of an archive, by name.

    Args:
        source: a tar or Parquet file, a folder of either (they are looked for first) or of images,
            or a pattern with ``*``.

    Raises:
        InputError: for a source that has none of these.
    """
    system, place = fsspec.core.url_to_fs(source)
    root = _root(system, place)
    found = _listed(system, place, root)
    for kind, endings in (("tar", (".tar",)), ("parquet", (".parquet",))):
        files = [file for file in found if file.endswith(endings)]
        if files:
            return [
                Shard(
                    below(file, root),
                    kind,  # type: ignore[arg-type]
                    (system.unstrip_protocol(file),),
                    version=_version(found, [file], root),
                )
                for file in files
            ]
    files = [file for file in found if file.lower().endswith(IMAGES)]
    if not files:
        wanted = "tar shards, Parquet files or images"
        raise InputError("source", wanted, f"none in {source}")
    twins = _twins(files)
    shards = []
    for start in range(0, len(files), FILES_A_SHARD):
        some = files[start : start + FILES_A_SHARD]
        shards.append(
            Shard(
                f"files-{start // FILES_A_SHARD:06d}",
                "folder",
                tuple(system.unstrip_protocol(file) for file in some),
                root,
                tuple(system.unstrip_protocol(file) for file in some if file in twins),
                _version(found, some, root),
            )
        )
    return shards


def check_apart(source: str, out: str) -> None:
    """Results may not lie where they replace what is read, or are read themselves next time.

    Raises:
        InputError: for such a folder.
    """
    system, place = fsspec.core.url_to_fs(source)
    other, target = fsspec.core.url_to_fs(out)
    root = _root(system, place)  # listing all files a second time would take long
    here, there = (f"{at.rstrip('/')}/" for at in (root, target))
    within = system.isdir(place) and there.startswith(here)
    if type(system) is type(other) and (here == there or within):
        raise InputError("out", "a folder apart from the source", out)


def _root(system: Any, place: str) -> str:
    """What the names of a source's files are relative to."""
    if _is_pattern(place):
        return place.split("*")[0].rpartition("/")[0]
    if system.isdir(place):
        return place
    if system.isfile(place):
        return str(PurePosixPath(place).parent)
    raise InputError("source", "an existing archive", system.unstrip_protocol(place))


def _is_pattern(place: str) -> bool:
    return any(sign in place for sign in "*?[")


def _listed(system: Any, place: str, root: str) -> dict[str, dict[str, Any]]:
    """The files of a source, with what the store says of them."""
    if _is_pattern(place):
        found = system.glob(place, detail=True)
    elif place == root:
        found = system.find(place, detail=True)
    else:
        found = {place: system.info(place)}
    return dict(sorted(found.items()))


def _version(found: dict[str, dict[str, Any]], files: list[str], root: str) -> str:
    """What changes when one of the files does."""
    tags = ("md5Hash", "ETag", "etag", "mtime", "updated", "created")
    told = []
    for file in files:
        tag = next((str(found[file][name]) for name in tags if found[file].get(name)), "")
        told.append([below(file, root), found[file].get("size"), tag])
    return fingerprint(told)


def _twins(files: list[str]) -> set[str]:
    """The files whose result would have another's name, if it did not keep their ending."""
    stems = Counter(str(PurePosixPath(file).with_suffix("")) for file in files)
    twins = {file for file in files if stems[str(PurePosixPath(file).with_suffix(""))] > 1}
    again = [file for file in twins if file in stems]
    if again:  # x.png, x.jpg and x.jpg.png
        raise InputError("source", "files whose results have names of their own", again[0])
    return twins


def below(file: str, root: str) -> str:
    """A file's name within the folder of its archive.

    Raises:
        InputError: for one that leads out of it.
    """
    name = file.removeprefix(root).lstrip("/")
    # Names come from outside: none may lead out of the folder of results.
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise InputError("source", "files below its folder", file)
    return name
