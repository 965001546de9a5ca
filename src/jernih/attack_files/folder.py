"""The folder that attacked images go to: what it was begun with, and which of them are finished."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jernih.run_folder import RunFolder
from jernih.storage import read_json, sha256_file, to_json, write_json, write_text
from jernih.validate import InputError
from jernih.world import current_world

_JOURNALS = ".finished*.jsonl"


@dataclass(frozen=True)
class Row:
    """What became of one image.

    Attributes:
        path: the attacked image, relative to the folder.
        source: the file it was made from.
        label: its true class.
        target: the class to reach; empty when untargeted.
        before: the model's class for the clean image.
        after: for the attacked image in float32.
        written: for the attacked image as it was read again from its file.
        success: whether ``after`` is what the attacker wants.
        success_written: whether ``written`` is.
        distance: size of the perturbation in the attack's norm.
        distance_written: the same as read again.
        linf_written: largest change of a pixel as read again.
        sha256: hash of the file's bytes.
    """

    path: str
    source: str
    label: str
    target: str
    before: str
    after: str
    written: str
    success: bool
    success_written: bool
    distance: float
    distance_written: float
    linf_written: float
    sha256: str

    @property
    def right(self) -> bool:
        """Whether the model was right before the attack."""
        return self.before == self.label


class AttackFolder:
    """A folder of attacked images that knows its settings and its finished images.

    ``attack.json`` has the settings from the start and the results at the end, a hidden journal a
    line for each finished image. Whatever is stopped, a rerun with the same settings goes on.

    Args:
        path: the folder; it need not exist.

    Raises:
        InputError: for a file, and for a folder with other things in it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.record = self.path / "attack.json"
        self.table = self.path / "manifest.csv"
        if self.path.exists() and not self.path.is_dir():
            raise InputError("out", "a folder", self.path)
        strange = self.path.is_dir() and any(f.name[0] != "." for f in self.path.iterdir())
        if strange and not self.record.is_file():
            raise InputError(
                "out", "an empty folder, or one of an earlier attack", self.path, "choose another"
            )

    @contextlib.contextmanager
    def begun(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Hold the folder for an attack with these settings, for all processes at it.

        Raises:
            InputError: when it was begun with other settings, is held by another process, or
                cannot be written.
        """
        wanted = json.loads(to_json(dict(settings)))
        world = current_world()
        world.meet()  # the folder is looked at by all before anything is in it
        with RunFolder(self.path, guarded=world.leads).locked():
            with world.leader_first():
                if self.record.is_file():
                    record = read_json(self.record)
                    known = record.get("settings") if isinstance(record, dict) else None
                    unlike = _unlike(known, wanted)
                    if unlike:
                        told = ", ".join(unlike[:4]) + (" …" if len(unlike) > 4 else "")
                        hint = "choose another folder"
                        raise InputError("out", "a folder begun with the same settings", told, hint)
                else:
                    write_json(self.record, {"settings": wanted})
            yield
            world.meet()

    def finished(self) -> tuple[dict[str, Row], dict[str, str]]:
        """What is done: rows by path, and the reasons of unreadable images by source."""
        rows, unreadable = {}, {}
        journals = sorted(self.path.glob(_JOURNALS))  # one for each process that has worked here
        text = "\n".join(journal.read_text(encoding="utf-8") for journal in journals)
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                if "unreadable" in entry:
                    unreadable[entry["source"]] = entry["unreadable"]
                else:
                    row = Row(**entry)
                    rows[row.path] = row
            except (ValueError, TypeError):
                continue  # a line that was being written when the process was killed
        for row in list(rows.values()):
            file = self.path / row.path
            if not file.is_file() or sha256_file(file) != row.sha256:
                del rows[row.path]
        return rows, unreadable

    def note(self, rows: Sequence[Row], unreadable: Mapping[str, str]) -> None:
        """Add finished images to this process's journal."""
        rank = current_world().rank
        journal = self.path / _JOURNALS.replace("*", f"-{rank}" if rank else "")
        entries = [dataclasses.asdict(row) for row in rows]
        entries += [{"source": s, "unreadable": why} for s, why in unreadable.items()]
        lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        with journal.open("a", encoding="utf-8") as stream:
            # The line before may be a torn one.
            stream.write("\n" + lines if stream.tell() else lines)
            stream.flush()
            os.fsync(stream.fileno())

    def complete(
        self, rows: Sequence[Row], constant: Mapping[str, Any], results: Mapping[str, Any]
    ) -> None:
        """Write the manifest, with what is the same for all rows in columns of its own.

        The manifest is a table that the data source ``table`` reads.
        """
        text = io.StringIO()
        names = [field.name for field in dataclasses.fields(Row)]
        writer = csv.DictWriter(text, [*names, *constant], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**dataclasses.asdict(row), **constant} for row in rows)
        write_text(self.table, text.getvalue())
        settings = read_json(self.record)["settings"]
        manifest = {"file": self.table.name, "sha256": sha256_file(self.table)}
        write_json(self.record, {**results, "settings": settings, "manifest": manifest})


def _unlike(known: Any, wanted: Any, place: str = "") -> list[str]:
    """Where two trees of plain data differ, in words."""
    if isinstance(known, dict) and isinstance(wanted, dict):
        keys = list(dict.fromkeys([*known, *wanted]))
        return [
            difference
            for key in keys
            for difference in _unlike(known.get(key), wanted.get(key), f"{place}.{key}".strip("."))
        ]
    return [] if known == wanted else [f"{place} {_short(known)} (now {_short(wanted)})"]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
