"""The folder in which nothing is lost: instances taken, results to send, what is done.

```
incoming/KEY.dcm       an instance that was acknowledged and is not worked on yet
outgoing/KEY-1.dcm     results that wait for the peer, the report and the image
done/KEY.json          the hash of each instance that was worked on, so that it is not again
failed/                instances and results that never will succeed, each with its reason
```

KEY is a hash of the instance's UID. Every file appears as a whole: written beside its place,
flushed to the disk, renamed, and the folder flushed, too. So whatever moment the process ends in,
the next one goes on: an instance in ``incoming`` without a record in ``done`` is worked on (again),
and its results have the same UIDs; what is in ``outgoing`` beside such a record is sent.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from jernih.storage import atomic_path, read_json, sha256_file, write_json
from jernih.validate import InputError

Taken = Literal["new", "known", "other"]


def key_of(uid: str) -> str:
    """The name under which an instance is kept: nobody's identifier, and safe as a file's name."""
    return hashlib.sha256(uid.encode()).hexdigest()[:32]


class Spool:
    """The node's durable memory.

    Args:
        folder: where; made when absent.

    Raises:
        InputError: when the folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            for name in ("incoming", "outgoing", "done", "failed"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError
        except OSError as error:
            reason = error.strerror or "not writable"
            raise InputError("spool", "a folder that can be written", folder, reason) from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the spool for this process.

        Raises:
            InputError: when another one holds it.
        """
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            hint = "wait for it or choose another"
            raise InputError("spool", "one that no other node uses", self.folder, hint) from None
        try:
            yield
        finally:
            lock.release()

    def take(self, uid: str, content: bytes) -> Taken:
        """Keep an instance; once this returns it is on the disk.

        Returns:
            ``"new"``; ``"known"`` for one that is here already, or was; ``"other"`` for another
            instance under a UID that is known, which is not kept.

        Raises:
            OSError: when the disk is full or the like; then nothing is kept.
        """
        key, digest = key_of(uid), hashlib.sha256(content).hexdigest()
        record = self.folder / "done" / f"{key}.json"
        if record.is_file():
            return "known" if read_json(record).get("sha256") == digest else "other"
        file = self.folder / "incoming" / f"{key}.dcm"
        if file.is_file():
            return "known" if sha256_file(file) == digest else "other"
        with atomic_path(file) as temporary:
            temporary.write_bytes(content)
        _flush(file.parent)
        return "new"

    def waiting(self) -> list[Path]:
        """Instances to work on, the oldest first."""
        found = []
        for file in _by_age(self.folder / "incoming"):
            if (self.folder / "done" / f"{file.stem}.json").is_file():
                file.unlink()  # the end came between the record and this
            else:
                found.append(file)
        return found

    def results(self, key: str) -> list[Path]:
        """Where an instance's results are to be written."""
        return [self.folder / "outgoing" / f"{key}-{number}.dcm" for number in (1, 2)]

    def finish(self, file: Path, results: int) -> None:
        """Note that an instance was worked on and its results are written."""
        _flush(self.folder / "outgoing")
        record = {"sha256": sha256_file(file), "results": results}
        _flush(write_json(self.folder / "done" / f"{file.stem}.json", record).parent)
        file.unlink()

    def to_send(self) -> list[Path]:
        """Results of instances that are done, the oldest first."""
        return [
            file
            for file in _by_age(self.folder / "outgoing")
            if (self.folder / "done" / f"{file.stem.rpartition('-')[0]}.json").is_file()
        ]

    def give_up(self, file: Path, reason: str) -> None:
        """Put an instance or a result aside for ever, with the reason."""
        if file.parent.name == "incoming":
            record: dict[str, Any] = {"sha256": sha256_file(file), "failed": reason}
            write_json(self.folder / "done" / f"{file.stem}.json", record)
        write_json(self.folder / "failed" / f"{file.stem}.json", {"reason": reason})
        file.replace(self.folder / "failed" / file.name)
        _flush(self.folder / "failed")


def _by_age(folder: Path) -> list[Path]:
    files = [file for file in folder.glob("*.dcm") if not file.name.startswith(".")]
    return sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.name))


def _flush(folder: Path) -> None:
    """Have the disk know the names in a folder."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
