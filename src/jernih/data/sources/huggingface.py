"""Data sets of the Hugging Face Hub, or saved from there."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jernih.data.sources.base import SOURCES, SPLIT_NAMES, DataSource, Item
from jernih.storage import atomic_path, fingerprint
from jernih.validate import InputError, check_choice


@SOURCES.register("huggingface")
class HuggingFace(DataSource):
    """A data set with a column of images and one of labels, read with the package ``datasets``.

    Each image is written once, as a PNG without loss (16-bit greyscale keeps its depth). One that
    cannot be decoded, or that no PNG can hold, is written as it is, for Explore to name.

    Args:
        id: name on the Hub such as ``"owner/name"``, or a folder made by ``save_to_disk``.
        image_column: column of the images.
        label_column: column of the labels; class names where it has them, otherwise its values as
            text.
        revision: branch, tag or commit on the Hub; name a commit for runs to repeat.

    Raises:
        InputError: when the package ``datasets`` is absent, the data set cannot be had, a column
            or label is absent, the image column holds none, or a split is not train, validation
            or test.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - what the Hub calls it
        image_column: str = "image",
        label_column: str = "label",
        revision: str | None = None,
    ) -> None:
        self.id = str(id)
        self.image_column = image_column
        self.label_column = label_column
        self.revision = revision
        self.label_space: tuple[str, ...] = ()

    def find(self, workdir: Path) -> Iterator[Item]:
        """Write the images that are missing and yield all of them."""
        splits = self._load()
        prints = {str(name): data._fingerprint for name, data in splits.items()}
        mark = fingerprint([self.id, self.revision, self.image_column, prints])
        root = Path(workdir).absolute() / f"huggingface-{mark[:12]}"
        for split, data in splits.items():
            labels = self._labels(data)
            for number, label in enumerate(labels):
                path = root / (split or "all") / f"{number:06d}.png"
                if not path.exists():
                    _write(data[number][self.image_column], path)
                yield Item(path, label, split)

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the data set's class names in their order, or the labels present."""
        return self.label_space or super().classes(labels)

    def place(self) -> str:
        """The data set's name."""
        return self.id

    def _load(self) -> dict[str | None, Any]:
        """Load the data set as its splits, with the images as stored bytes."""
        try:
            import datasets
        except ImportError:
            raise InputError(
                "source 'huggingface'", "the package datasets", "none", "pip install 'jernih[hub]'"
            ) from None
        try:
            if Path(self.id).expanduser().is_dir():
                loaded = datasets.load_from_disk(str(Path(self.id).expanduser()))
            else:
                loaded = datasets.load_dataset(self.id, revision=self.revision)
        except Exception as error:  # network, Hub and file formats each raise their own
            wanted = "a data set of the Hugging Face Hub, or a folder made by save_to_disk"
            why = f"{type(error).__name__}: {error}"
            raise InputError(f"id {self.id!r}", wanted, why) from None
        named = loaded if isinstance(loaded, datasets.DatasetDict) else {None: loaded}
        splits: dict[str | None, Any] = {}
        for name, data in named.items():
            split = None if name is None else SPLIT_NAMES.get(name)
            if name is not None and (split is None or split in splits):
                wanted = "splits train, validation and test, each at most once"
                raise InputError(f"id {self.id!r}", wanted, ", ".join(named))
            for column in (self.image_column, self.label_column):
                check_choice(f"column of {self.id}", column, data.column_names)
            if not isinstance(data.features[self.image_column], datasets.Image):
                raise InputError(f"column {self.image_column!r} of {self.id}", "images", "others")
            stored = datasets.Image(decode=False)
            splits[split] = data.cast_column(self.image_column, stored)
        return splits

    def _labels(self, data: Any) -> list[str]:
        """The labels of a split as text."""
        names = getattr(data.features[self.label_column], "names", None)
        if names is not None:
            self.label_space = tuple(names)
        labels = []
        for row, value in enumerate(data[self.label_column], start=1):
            if value is None or value == "" or (names is not None and value < 0):
                raise InputError(f"row {row} of {self.id}", f"a {self.label_column}", repr(value))
            labels.append(str(value) if names is None else names[value])
        return labels


def _write(stored: dict[str, Any], path: Path) -> None:
    """Write one image as PNG, or as it is where that cannot be."""
    content = stored["bytes"] or Path(stored["path"]).read_bytes()
    with atomic_path(path) as temporary:
        try:
            with Image.open(io.BytesIO(content)) as image:
                _as_png(image).save(temporary, format="PNG")
        except (OSError, SyntaxError, ValueError, TypeError, EOFError):
            temporary.write_bytes(content)


def _as_png(image: Image.Image) -> Image.Image:
    """The same picture in a mode that PNG has.

    Raises:
        ValueError: when there is none.
    """
