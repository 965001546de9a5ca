"""A folder of DICOM files with a table of who is ill, as in the RSNA pneumonia challenge."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from jernih.data.sources.base import SOURCES, DataSource, Item, existing, listed, read_rows
from jernih.validate import InputError

log = logging.getLogger(__name__)


@SOURCES.register("dicom")
class Dicom(DataSource):
    """DICOM files named after the patient, and a CSV with ``patientId`` and ``Target`` (0 or 1).

    A patient may have several rows, one for each finding; one row with 1 makes the patient
    positive. This is the layout of the RSNA Pneumonia Detection Challenge (Shih et al., Radiology:
    Artificial Intelligence 2019, doi:10.1148/ryai.2019180041), ``stage_2_train_labels.csv``.

    Args:
        path: the folder, searched with its subfolders for ``.dcm`` and ``.dicom``.
        labels: the CSV.
        negative: class of the patients without a finding, class index 0.
        positive: class of the patients with one, class index 1.

    Raises:
        InputError: for an absent folder or CSV, another column layout, a target other than 0 and
            1, and a file without a label.
    """

    def __init__(
        self,
        path: str | Path,
        labels: str | Path,
        negative: str = "NORMAL",
        positive: str = "PNEUMONIA",
    ) -> None:
        if not negative or not positive or negative == positive:
            raise InputError(
                "negative, positive", "two different class names", f"{negative!r}, {positive!r}"
            )
        self.path, self.labels = path, labels
        self.negative, self.positive = negative, positive

    def find(self, workdir: Path) -> Iterator[Item]:
        """Yield the labelled DICOM files."""
        root = existing(self.path, "path", folder=True)
        targets = self._targets(existing(self.labels, "labels", folder=False))
        files = sorted(
            file
            for file in root.rglob("*")
            if file.suffix.lower() in (".dcm", ".dicom")
            and not any(part.startswith(".") for part in file.relative_to(root).parts)
            and file.is_file()
        )
        unknown = [str(file.relative_to(root)) for file in files if file.stem not in targets]
        if unknown:
            raise InputError(f"labels {self.labels}", "a row for every file", listed(unknown))
        unused = len(targets.keys() - {file.stem for file in files})
        if files and unused:
            log.warning("%d patients of %s have no file in %s", unused, self.labels, root)
        for file in files:
            label = self.positive if targets[file.stem] else self.negative
            yield Item(file, label, patient=file.stem)

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return both classes, the negative one first."""
        return self.negative, self.positive

    def _targets(self, file: Path) -> dict[str, bool]:
        rows = read_rows(file, ("patientId", "Target"))
        wrong = [
            f"row {number}: {row['Target']!r}"
            for number, row in enumerate(rows, start=1)
            if row["Target"] not in ("0", "1")
        ]
        if wrong:
            raise InputError(f"labels {file}", "a Target of 0 or 1", listed(wrong))
        targets: dict[str, bool] = {}
        for row in rows:
            patient = row["patientId"]
            targets[patient] = targets.get(patient, False) or row["Target"] == "1"
        return targets
