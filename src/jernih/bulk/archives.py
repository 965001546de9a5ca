"""What is read of a shard, image by image, and how it is written again."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec
import torch
from torch import Tensor

from jernih.bulk.shards import IMAGES, Shard, below
from jernih.data.images import read_image, write_png
from jernih.storage import fingerprint
from jernih.validate import InputError

ROWS_AT_ONCE = 64


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
            file = PurePosixPath(below(place, shard.root))
            label = file.parts[-2] if len(file.parts) > 1 else None
            name = file if path in shard.twins else file.with_suffix("")
            yield Entry(str(name), content, file.suffix.lower(), label)


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
                    yield from _of_members(path, key, members)
                    members = {}
                key = name
                if f".{ending.lower()}" in members:
                    raise InputError(f"shard {path}", "each name once", f"{member.name} again")
                members[f".{ending.lower()}"] = opened.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"shard {path}", "a whole tar file", error) from None
    if members:
        yield from _of_members(path, key, members)


def _of_members(path: str, name: str, members: dict[str, bytes]) -> Iterator[Entry]:
    endings = [ending for ending in members if ending in IMAGES]
    if not endings:
        return
    if len(endings) > 1:  # their results would have one name
        alike = ", ".join(name + ending for ending in endings)
        raise InputError(f"shard {path}", "one image of a name", alike)
    (ending,) = endings
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
        if self.table is None:
            self.table = parquet.ParquetWriter(self.buffer, _schema(self.shard.paths[0]))
        self.table.write_table(pa.Table.from_pylist(self.rows, schema=self.table.schema))
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


def _schema(path: str) -> Any:
    """A Parquet file's columns, with images as bytes: the first rows may not tell their types."""
    import pyarrow as pa
    from pyarrow import parquet

    with fsspec.open(path, "rb") as stream:
        schema = parquet.read_schema(stream).remove_metadata()
    return schema.set(schema.get_field_index("image"), pa.field("image", pa.binary()))


def put(target: str, content: bytes | IO[bytes]) -> None:
    """Write a remote or local file that is either wholly there or not at all."""
    system, place = fsspec.core.url_to_fs(target)
    system.makedirs(place.rpartition("/")[0], exist_ok=True)
    temporary = f"{place}.{fingerprint(place)[:8]}.tmp"
    with system.open(temporary, "wb") as stream:
        shutil.copyfileobj(io.BytesIO(content) if isinstance(content, bytes) else content, stream)
    system.mv(temporary, place)
