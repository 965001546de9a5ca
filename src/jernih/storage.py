"""Files that are either wholly there or not there at all: atomic writes, hashes, JSON."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jernih.validate import InputError

YAML_VALUES = 100_000
"""Most values that a YAML text may stand for."""

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that takes its name once the block succeeds.

    The parent folders are made. When the block raises, the temporary file goes and an existing
    ``target`` stays as it was. The temporary name keeps the target's suffix, since many writers
    choose their format by it; and it is the same every time, so that what a killed process has
    left is overwritten by the next one. A process that finds it in use takes another name.

    Raises:
        OSError: when the folder cannot be written or the disk is full.
    """
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, handle = _claimed(path)
    renamed = False
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
        renamed = True
    finally:
        if not renamed:  # else the name may be another process' by now
            temporary.unlink(missing_ok=True)
        os.close(handle)  # and with it the claim


def _claimed(path: Path) -> tuple[Path, int]:
    """An empty temporary file beside ``path`` that no other process writes, and its handle."""
    if fcntl is not None:
        mark = zlib.crc32(path.name.encode())
        usual = path.with_name(f".{path.stem[:40]}-{mark:08x}.tmp{path.suffix}")
        handle = os.open(usual, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last owner may have renamed it between our opening and our claim.
            if os.fstat(handle).st_ino == usual.stat().st_ino:
                os.ftruncate(handle, 0)
                return usual, handle
        except OSError:
            pass
        os.close(handle)
    handle, name = tempfile.mkstemp(
        prefix=f".{path.stem[:40]}-", suffix=f".tmp{path.suffix}", dir=path.parent
    )
    return Path(name), handle


def write_text(target: str | os.PathLike[str], text: str) -> Path:
    """Write ``text`` as UTF-8, atomically, and return the path."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(target)


def _plain(value: Any) -> Any:
    """Replace NaN and infinities by None: strict JSON has neither."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def to_json(value: Any) -> str:
    """Render plain data as strict, indented JSON (NaN and infinities as null)."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(target: str | os.PathLike[str], value: Any) -> Path:
    """Write plain data as strict JSON, atomically, and return the path."""
    return write_text(target, to_json(value))


def read_json(source: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        InputError: when the file is absent or is not JSON.
    """
    path = Path(source)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("JSON file", "an existing file", str(path)) from None
    except ValueError as error:
        raise InputError(f"JSON file {path}", "valid JSON", str(error)) from None


def sha256_file(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """A SHA-256 over plain data that does not depend on the order of its keys."""
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def parse_yaml(text: str) -> Any:
    """Parse YAML of plain values, of a bounded size also where its aliases repeat parts of it.

    A few hundred bytes of aliases to aliases can stand for billions of values (a "billion laughs"),
    and an alias may contain itself.

    Raises:
        yaml.YAMLError: for what is not YAML, is nested too deep, or stands for too much.
    """
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None and _values(root, {}) > YAML_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {YAML_VALUES:,} values")
        return yaml.safe_load(text)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deep") from None


def _values(node: Any, known: dict[int, int]) -> int:
    """How many values a node stands for, with aliases written out."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = YAML_VALUES + 1  # for one that contains itself
    inner = node.value if isinstance(node.value, list) else []
    parts = [part for each in inner for part in (each if isinstance(each, tuple) else (each,))]
    known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]
