"""What every data source shares: finding images and their labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jernih.data.manifest import SPLITS
from jernih.registry import Configured, Registry
from jernih.validate import InputError


@dataclass(frozen=True)
class Item:
    """One image as a source names it.

    Attributes:
        path: the file.
        label: name of its class.
        split: "train", "val" or "test" where the source says so.
        patient: whom it shows, where the source says so.
    """

    path: Path
    label: str
    split: str | None = None
    patient: str = ""


class DataSource(Configured, ABC):
    """Somewhere images and labels come from.

    Calling a source finds its images and checks that each is a file with a label. A subclass
    writes only :meth:`find`, and :meth:`classes` where the label space is larger than what is
    there.
    """

    def __call__(self, workdir: Path) -> list[Item]:
        """Find all images.

        Args:
            workdir: folder for a source that makes or fetches files.

        Returns:
            the images, sorted by path.

        Raises:
            InputError: when there are none, a file is absent, or a label is empty.
        """
        items = sorted(self.find(Path(workdir)), key=lambda item: str(item.path))
        if not items:
            raise InputError(f"source {self.name!r}", "at least one image", "none", self.place())
        for item in items:
            if not item.path.is_file():
                raise InputError(f"source {self.name!r}", "an existing file", item.path)
            if not item.label:
                raise InputError(f"source {self.name!r}", f"a label for {item.path}", "none")
            if item.split is not None and item.split not in SPLITS:
                raise InputError(
                    f"source {self.name!r}", f"a split among {', '.join(SPLITS)}", item.split
                )
        return items

    @abstractmethod
    def find(self, workdir: Path) -> Iterable[Item]:
        """Yield the images in any order."""

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the label space, in the order of the class indices, given the labels present."""
        return tuple(sorted(set(labels)))

    def place(self) -> str:
        """Where the source looks, for an error."""
        return str(self.options.get("path", ""))


def existing(path: str | Path, argument: str, *, folder: bool) -> Path:
    """Return an absolute path that exists and is a folder, or a file.

    Raises:
        InputError: otherwise.
    """
    place = Path(path).expanduser().absolute()
    if folder and not place.is_dir():
        raise InputError(argument, "an existing folder", place)
    if not folder and not place.is_file():
        raise InputError(argument, "an existing file", place)
    return place


SOURCES: Registry[DataSource] = Registry("source")
"""All data sources by name."""
