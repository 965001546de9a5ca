"""The manifest: which images there are, what they show, and which split they belong to."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from jernih.storage import read_json, sha256_file, write_json, write_text
from jernih.validate import InputError

SPLITS = ("train", "val", "test")
"""What images serve for: to learn from, to choose and calibrate by, to measure."""

_COLUMNS = ("path", "label", "split", "patient", "sha256")


@dataclass(frozen=True)
class Record:
    """One image.

    Attributes:
        path: absolute path of the file.
        label: name of its class.
        split: "train", "val" or "test".
        patient: whom it shows; empty where nobody knows.
        sha256: hash of the file's bytes.
    """

    path: Path
    label: str
    split: str
    patient: str
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The images of a run.

    Attributes:
        source: where they came from, as plain data.
        classes: the label space; the order gives the class indices. It may hold classes of which
            no image is here.
        records: the images.
        seed: seed of the splits.
    """

    source: dict[str, Any]
    classes: tuple[str, ...]
    records: tuple[Record, ...]
    seed: int

    def __len__(self) -> int:
        return len(self.records)

    def keep(self, predicate: Callable[[Record], bool]) -> Manifest:
        """Return the manifest of those images that the predicate holds for, in the same order."""
        return replace(self, records=tuple(r for r in self.records if predicate(r)))

    def split(self, name: str) -> Manifest:
        """Return the manifest of one split."""
        return self.keep(lambda record: record.split == name)

    def counts(self) -> dict[str, dict[str, int]]:
        """Count the images of each split and label; labels without images are left out."""
        counts: dict[str, dict[str, int]] = {name: {} for name in SPLITS}
        for record in self.records:
            split = counts[record.split]
            split[record.label] = split.get(record.label, 0) + 1
        return {name: dict(sorted(labels.items())) for name, labels in counts.items()}

    def labels(self) -> Tensor:
        """Class indices of the images, int64 (N,)."""
        index = {label: number for number, label in enumerate(self.classes)}
        return torch.tensor([index[record.label] for record in self.records], dtype=torch.int64)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``manifest.csv`` (a row an image) and ``manifest.json`` (the rest) to a folder."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows([r.path, r.label, r.split, r.patient, r.sha256] for r in self.records)
        table = write_text(Path(folder) / "manifest.csv", text.getvalue())
        write_json(
            Path(folder) / "manifest.json",
            {
                "source": self.source,
                "classes": self.classes,
                "seed": self.seed,
                "counts": {s: sum(c.values()) for s, c in self.counts().items()},
                "sha256": sha256_file(table),
            },
        )

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: when a file is absent, damaged or edited.
        """
        head = read_json(Path(folder) / "manifest.json")
        table = Path(folder) / "manifest.csv"
        if not table.is_file():
            raise InputError("manifest", "an existing manifest.csv", table)
        if not isinstance(head, dict) or sha256_file(table) != head.get("sha256"):
            raise InputError(f"manifest {table}", "the file that was written", "a changed one")
        absent = [key for key in ("source", "classes", "seed") if key not in head]
        if absent:
            raise InputError(f"manifest {folder}", "a whole manifest.json", f"no {absent[0]!r}")
        with table.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        unknown = {row["label"] for row in rows} - set(head["classes"])
        if unknown:
            raise InputError(f"manifest {folder}", "labels among its classes", min(unknown))
        records = tuple(
            Record(Path(r["path"]), r["label"], r["split"], r["patient"], r["sha256"]) for r in rows
        )
        return cls(head["source"], tuple(head["classes"]), records, head["seed"])
