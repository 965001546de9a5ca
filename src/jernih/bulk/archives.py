"""Shards of an archive: what is read of them one by one, and how they are written again.

A shard is the piece of work that is done as a whole: a tar file in the layout of WebDataset, a
Parquet file, or a number of the files of a folder. Paths may be local or what fsspec understands
(``s3://…``, ``gs://…``, ``memory://…``).
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

import fsspec
import torch
from torch import Tensor

from jernih.data.images import read_image, write_png
from jernih.storage import fingerprint
from jernih.validate import InputError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm")
FILES_A_SHARD = 256
ROWS_AT_ONCE = 64

Kind = Literal["tar", "parquet", "folder"]


@dataclass(frozen=True)
class Shard:
    """A piece of an archive.

    Attributes:
        name: its name, under which its outcome is kept.
        kind: what it is.
        paths: the file, or the files of a folder.
        root: what the names of a folder's files are relative to.
    """

    name: str
    kind: Kind
    paths: tuple[str, ...]
    root: str = ""


@dataclass(frozen=True)
class Entry:
    """An image of a shard, still encoded.

    Attributes:
        name: what it is called in the shard, without its ending.
        content: the bytes of its file.
        ending: what they are, such as ``".png"``.
        label: its class, by name or by number; None where the shard does not say.
        rest: what else the shard has of it, kept as it is.
    """

    name: str
    content: bytes
    ending: str
    label: str | int | None = None
    rest: dict[str, Any] = field(default_factory=dict)

    def image(self) -> Tensor:
        """The image, float32 (3, H, W) in [0, 1].

        Raises:
            UnreadableImage: for what is no image.
        """
        with tempfile.NamedTemporaryFile(suffix=self.ending) as file:
            file.write(self.content)
            file.flush()
            return read_image(file.name)


def find_shards(source: str) -> list[Shard]:
    """The shards of an archive, by name.

    Args:
        source: a tar or Parquet file, a folder of either (they are looked for first) or of images,
            or a pattern with ``*``.

    Raises:
        InputError: for a source that has none of these.
    """
    system, place = fsspec.core.url_to_fs(source)
    if any(sign in place for sign in "*?["):
        found = sorted(system.glob(place))
        root = place.split("*")[0].rpartition("/")[0]
    elif system.isdir(place):
        found, root = sorted(system.find(place)), place
    elif system.isfile(place):
        found, root = [place], str(PurePosixPath(place).parent)
    else:
        raise InputError("source", "an existing archive", source)
    for kind, endings in (("tar", (".tar",)), ("parquet", (".parquet",))):
        files = [file for file in found if file.endswith(endings)]
        if files:
            return [
                Shard(_below(file, root), kind, (system.unstrip_protocol(file),))  # type: ignore[arg-type]
                for file in files
            ]
    files = [file for file in found if file.lower().endswith(IMAGES)]
    if not files:
        wanted = "tar shards, Parquet files or images"
        raise InputError("source", wanted, f"none in {source}")
    return [
        Shard(
            f"files-{start // FILES_A_SHARD:06d}",
            "folder",
            tuple(system.unstrip_protocol(file) for file in files[start : start + FILES_A_SHARD]),
            root,
        )
        for start in range(0, len(files), FILES_A_SHARD)
    ]


def _below(file: str, root: str) -> str:
    name = file.removeprefix(root).lstrip("/")
    # Names come from outside: none may lead out of the folder of results.
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise InputError("source", "files below its folder", file)
    return name


def read_shard(shard: Shard) -> Iterator[Entry]:
    """The images of a shard in order, one at a time.

    Raises:
        InputError: for a damaged tar or Parquet file, and a table without images.
    """
    if shard.kind == "tar":
        yield from _read_tar(shard.paths[0])
    elif shard.kind == "parquet":
        yield from _read_parquet(shard.paths[0])
    else:
        for path in shard.paths:
            with fsspec.open(path, "rb") as stream:
                content = stream.read()
            _, place = fsspec.core.url_to_fs(path)
            below = PurePosixPath(_below(place, shard.root))
            label = below.parts[-2] if len(below.parts) > 1 else None
            yield Entry(str(below.with_suffix("")), content, below.suffix.lower(), label)


def _read_tar(path: str) -> Iterator[Entry]:
    """Members of one base name belong together, as WebDataset has it."""
    key = ""
    members: dict[str, bytes] = {}
    try:
        with (
            fsspec.open(path, "rb") as stream,
            tarfile.open(fileobj=stream, mode="r|*") as archive,
        ):
            for member in archive:
                opened = archive.extractfile(member) if member.isfile() else None
                if opened is None:  # links and devices are left aside
                    continue
                folder, _, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                name = f"{folder}/{stem}" if folder else stem
                if name != key and members:
                    yield from _of_members(key, members)
                    members = {}
                key = name
                members[f".{ending.lower()}"] = opened.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"shard {path}", "a whole tar file", error) from None
    if members:
        yield from _of_members(key, members)


def _of_members(name: str, members: dict[str, bytes]) -> Iterator[Entry]:
    ending = next((ending for ending in members if ending in IMAGES), None)
    if ending is None:
        return
    label: str | int | None = None
    if ".cls" in members:
        text = members[".cls"].decode("utf-8", "replace").strip()
        label = int(text) if text.isdigit() else text
    elif ".json" in members:
        try:
            told = json.loads(members[".json"])
        except ValueError:
            told = None
        found = told.get("label") if isinstance(told, dict) else None
        label = found if isinstance(found, (str, int)) else None
    rest = {key: value for key, value in members.items() if key != ending}
    yield Entry(name, members[ending], ending, label, rest)


def _read_parquet(path: str) -> Iterator[Entry]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with fsspec.open(path, "rb") as stream:
            table = parquet.ParquetFile(stream)
            if "image" not in table.schema_arrow.names:
                raise InputError(
                    f"shard {path}", "a column 'image'", ", ".join(table.schema_arrow.names)
                )
            number = 0
            for batch in table.iter_batches(ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    held = row.pop("image")
                    content = held.get("bytes") if isinstance(held, dict) else held
                    if not isinstance(content, bytes):
                        raise InputError(f"shard {path}", "encoded images", type(held).__name__)
                    label = row.get("label")
                    kept = label if isinstance(label, (str, int)) else None
                    yield Entry(f"{number:08d}", content, ".png", kept, row)
                    number += 1
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"shard {path}", "a whole Parquet file", error) from None


def encoded(image: Tensor) -> bytes:
    """An image (3, H, W) in [0, 1] as an 8-bit PNG."""
    with tempfile.TemporaryDirectory() as folder:
        return write_png(Path(folder) / "image.png", image.cpu().to(torch.float32)).read_bytes()


class Writer:
    """Writes a shard like the one read, with the images as PNG; the outcome appears as a whole.

    Args:
        shard: the shard that was read.
        out: the folder of results.
    """

    def __init__(self, shard: Shard, out: str) -> None:
        self.shard = shard
        self.out = out.rstrip("/")
        self.rows: list[dict[str, Any]] = []
        self.buffer = tempfile.SpooledTemporaryFile(2**25)  # noqa: SIM115 - closed in close
        self.tar = None
        if shard.kind == "tar":
            self.tar = tarfile.open(fileobj=self.buffer, mode="w")  # noqa: SIM115 - closed in close
        self.table: Any = None

    def add(self, entry: Entry, content: bytes) -> None:
        """Add an image as it is now, beside what else there was of it."""
        if self.tar is not None:
            for ending, held in {**entry.rest, ".png": content}.items():
                member = tarfile.TarInfo(f"{entry.name}{ending}")
                member.size = len(held)
                self.tar.addfile(member, io.BytesIO(held))
        elif self.shard.kind == "parquet":
            self.rows.append({"image": content, **entry.rest})
            if len(self.rows) >= ROWS_AT_ONCE:
                self._flush()
        else:
            put(f"{self.out}/{entry.name}.png", content)

    def _flush(self) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        if not self.rows:
            return
        piece = pa.Table.from_pylist(
            self.rows, schema=None if self.table is None else self.table.schema
        )
        if self.table is None:
            self.table = parquet.ParquetWriter(self.buffer, piece.schema)
        self.table.write_table(piece)
        self.rows = []

    def close(self) -> None:
        """Put the shard where it belongs."""
        if self.tar is not None:
            self.tar.close()
        elif self.shard.kind == "parquet":
            self._flush()
            if self.table is None:
                return
            self.table.close()
        else:
            return
        self.buffer.seek(0)
        put(f"{self.out}/{self.shard.name}", self.buffer)
        self.buffer.close()


def put(target: str, content: bytes | IO[bytes]) -> None:
    """Write a remote or local file that is either wholly there or not at all."""
    system, place = fsspec.core.url_to_fs(target)
    system.makedirs(place.rpartition("/")[0], exist_ok=True)
    temporary = f"{place}.{fingerprint(place)[:8]}.tmp"
    with system.open(temporary, "wb") as stream:
        shutil.copyfileobj(io.BytesIO(content) if isinstance(content, bytes) else content, stream)
    system.mv(temporary, place)
