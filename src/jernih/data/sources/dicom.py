"""DICOM radiographs with a table of findings, as in the RSNA Pneumonia Detection Challenge."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from jernih.data.sources.base import SOURCES, DataSource, Item, existing
from jernih.data.sources.table import column, filled, read_table
from jernih.validate import InputError

log = logging.getLogger(__name__)


@SOURCES.register("dicom")
class Dicom(DataSource):
    """A folder of ``PATIENT.dcm`` files and a CSV with the columns ``patientId`` and ``Target``.

    A patient can have several rows, one a finding; one row with the target 1 makes all their
    images positive. The names of the challenge's files are those of its patients.

    Args:
        path: the folder; files in folders below it count too.
        labels: the CSV, such as ``stage_2_train_labels.csv``.
        negative: class of the target 0, and the first class index.
        positive: class of the target 1.

    Raises:
        InputError: for an absent folder or table, a target other than 0 and 1, or files that the
            table does not name.
    """

    def __init__(
        self,
        path: str | Path,
        labels: str | Path,
        negative: str = "NORMAL",
        positive: str = "PNEUMONIA",
    ) -> None:
        self.path = path
        self.labels = labels
        if negative == positive:
            raise InputError("positive", "another class than the negative one", repr(positive))
        self.label_space = (negative, positive)

    def find(self, workdir: Path) -> Iterator[Item]:
        """Yield every DICOM file with its label."""
        root = existing(self.path, "path", folder=True)
        targets = self._targets(existing(self.labels, "labels", folder=False))
        files = sorted(f for f in root.rglob("*") if f.suffix.lower() in (".dcm", ".dicom"))
        unknown = [file.name for file in files if file.stem not in targets]
        if unknown:
            named = ", ".join(unknown[:3])
            raise InputError(
                f"labels {self.labels}", "a row for every file", f"none for {len(unknown)}: {named}"
            )
        absent = len(set(targets) - {file.stem for file in files})
        if absent:
            log.warning("%d patients of %s have no file in %s", absent, self.labels, root)
        for file in files:
            yield Item(file, self.label_space[targets[file.stem]], patient=file.stem)

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return both classes, the negative one first."""
        return self.label_space

    def _targets(self, file: Path) -> dict[str, bool]:
        """Whether each patient has a row with the target 1."""
        table = read_table(file)
        positive: dict[str, bool] = {}
        rows = zip(filled(table, "patientId", file), column(table, "Target", file), strict=True)
        for row, (patient, target) in enumerate(rows, start=1):
            if target not in ("0", "1"):
                raise InputError(f"row {row} of {file}", "the target 0 or 1", repr(target))
            positive[patient] = positive.get(patient, False) or target == "1"
        return positive
