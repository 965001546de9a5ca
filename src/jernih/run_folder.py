"""The folder of a run: which stages are complete, and one process at a time."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from jernih import __version__
from jernih.storage import fingerprint, read_json, sha256_file, write_json
from jernih.validate import InputError

log = logging.getLogger(__name__)


class RunFolder:
    """Remembers each stage's inputs and outputs, so that what is complete is not done again.

    A stage is complete when its record names the same inputs as now and every file that it wrote
    is still there with the same SHA-256.

    Args:
        path: the folder; made when absent.
        guarded: whether :meth:`locked` locks; of several processes at one run, one does.

    Raises:
        InputError: when the folder cannot be made or written, or is a file.
    """

    def __init__(self, path: str | os.PathLike[str], *, guarded: bool = True) -> None:
        self.path = Path(path)
        self.guarded = guarded
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK):
                raise PermissionError
        except OSError as error:
            reason = error.strerror or "not writable"
            raise InputError("out", "a folder that can be written", self.path, reason) from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process.

        Raises:
            InputError: when another process holds it.
        """
        if not self.guarded:
            yield
            return
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                "out",
                "a folder that no other run is using",
                self.path,
                "wait for it or choose another",
            ) from None
        try:
            yield
        finally:
            lock.release()

    def stage(self, name: str) -> Path:
        """The folder of a stage, made when absent."""
        folder = self.path / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def key(self, inputs: Mapping[str, Any]) -> str:
        """The fingerprint of a stage's inputs and the version of Jernih."""
        return fingerprint({"jernih": __version__, **inputs})

    def is_complete(self, name: str, key: str) -> bool:
        """Whether the stage ran with these inputs and its files are as it left them."""
        record_path = self.path / name / "stage.json"
        if not record_path.is_file():
            return False
        try:
            record = read_json(record_path)
            outputs: dict[str, str] = record["outputs"]
            if record["key"] != key:
                return False
        except (InputError, KeyError, TypeError):
            log.warning("%s is damaged; the stage is done again", record_path)
            return False
        for file, digest in outputs.items():
            path = self.path / name / file
            if not path.is_file() or sha256_file(path) != digest:
                log.warning("%s is absent or was changed; stage %s is done again", path, name)
                return False
        return True

    def begin(self, name: str, key: str) -> Path:
        """Make ready for a stage; what an interrupted try with the same inputs left stays.

        Returns:
            the stage's folder.
        """
        folder = self.stage(name)
        (folder / "stage.json").unlink(missing_ok=True)
        started = folder / "started.json"
        if not started.is_file() or _key_in(started) != key:
            for leftover in ("checkpoints", "parts"):
                shutil.rmtree(folder / leftover, ignore_errors=True)
            write_json(started, {"key": key})
        return folder

    def complete(self, name: str, key: str) -> None:
        """Record that a stage is done, with the hashes of all files below its folder.

        Folders that hold another stage's record, logs, and files whose name starts with a dot are
        left out.
        """
        folder = self.path / name
        outputs = {
            str(file.relative_to(folder)): sha256_file(file)
            for file in sorted(folder.rglob("*"))
            if file.is_file() and not _is_passing(file.relative_to(folder))
        }
        write_json(folder / "stage.json", {"key": key, "outputs": outputs})
        (folder / "started.json").unlink(missing_ok=True)

    def outputs(self, name: str) -> str:
        """The fingerprint of a complete stage's files, as input for the stages after it."""
        record = read_json(self.path / name / "stage.json")
        return fingerprint(record["outputs"])


def _is_passing(file: Path) -> bool:
    return (
        file.name in ("stage.json", "started.json")
        or file.parts[0] in ("tensorboard", "images", "parts", "checkpoints")
        or any(part.startswith(".") for part in file.parts)
    )


def _key_in(path: Path) -> Any:
    try:
        return read_json(path).get("key")
    except (InputError, AttributeError):
        return None
