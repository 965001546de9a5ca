"""A data set of the Hugging Face hub, or one saved with ``save_to_disk``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from jernih.data.sources.base import SOURCES, SPLIT_NAMES, DataSource, Item
from jernih.storage import atomic_path, fingerprint
from jernih.validate import InputError, check_choice


@SOURCES.register("huggingface")
class HuggingFace(DataSource):
    """Images and labels of a Hugging Face data set, written once as lossless PNG files.

    Needs the extra ``jernih[hub]``. An interrupted run goes on where it stopped. The hub's names
    train, validation (valid, val) and test stand for ours.

    Args:
        id: name of the data set on the hub, such as ``"owner/name"``, or a local folder made by
            ``save_to_disk``.
        split: take only this split of the hub, and split it anew.
        image_column: column of the images.
        label_column: column of the labels; the names of a ``ClassLabel`` are the classes in its
            order.
        revision: commit or tag on the hub; pin it to get the same data again.

    Raises:
        InputError: when the extra is not installed, for an unknown data set, split or column, and
            for an image or label that is absent or damaged.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - what the hub calls it
        split: str | None = None,
        image_column: str = "image",
        label_column: str = "label",
        revision: str | None = None,
    ) -> None:
        if not isinstance(id, (str, Path)) or not str(id):
            raise InputError("id", "a data set's name or folder", repr(id))
        self.id, self.only, self.revision = str(id), split, revision
        self.image_column, self.label_column = image_column, label_column
        self._names: tuple[str, ...] = ()

    def find(self, workdir: Path) -> Iterator[Item]:
        """Write the images that are not there yet and yield all of them."""
        library = _library()
        parts = self._load(library)
        if self.only is not None:
            check_choice("split", self.only, list(parts))
            parts = {self.only: parts[self.only]}
        elif None not in parts:
            for name in parts:
                if name.lower() not in SPLIT_NAMES:
                    raise InputError(
                        f"data set {self.id}",
                        "the splits train, validation and test",
                        ", ".join(parts),
                        "choose one of them with split",
                    )
        for name, data in parts.items():
            split = None if name is None or self.only else SPLIT_NAMES[name.lower()]
            yield from self._items(library, data, name or "all", split, workdir)

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the ``ClassLabel``, or the labels present."""
        return self._names or super().classes(labels)

    def place(self) -> str:
        """Name the data set, for an error."""
        return self.id

    def _load(self, library: ModuleType) -> Mapping[Any, Any]:
        """The data set's parts by the hub's split names; a single part goes by None."""
        folder = Path(self.id).expanduser()
        try:
            if folder.is_dir():
                loaded = library.load_from_disk(str(folder))
            else:
                loaded = library.load_dataset(self.id, revision=self.revision)
        except (OSError, ValueError, library.exceptions.DatasetsError) as error:
            expected = "a data set of the hub or a folder made by save_to_disk"
            raise InputError(f"data set {self.id}", expected, error) from None
        return loaded if isinstance(loaded, dict) else {None: loaded}

    def _items(
        self, library: ModuleType, data: Any, name: str, split: str | None, workdir: Path
    ) -> Iterator[Item]:
        for column in (self.image_column, self.label_column):
            check_choice("column", column, data.column_names)
        if not isinstance(data.features[self.image_column], library.Image):
            kind = type(data.features[self.image_column]).__name__
            raise InputError(f"column {self.image_column!r}", "images", kind)
        labels = self._labels(data.features[self.label_column], data, name)
        # The library's own fingerprint keeps the files of another version of the data apart.
        key = fingerprint([self.id, self.revision, name, self.image_column, data._fingerprint])
        folder = workdir / f"huggingface-{key[:12]}"
        width = len(str(max(len(data) - 1, 0)))
        for index, label in enumerate(labels):
            file = folder / f"{index:0{width}d}.png"
            if not file.exists():
                self._write(data, index, file, f"image {index} of {self.id}, split {name}")
            yield Item(file, label, split)

    def _labels(self, feature: Any, data: Any, name: str) -> list[str]:
        values = list(data[self.label_column])
        names = getattr(feature, "names", None)
        if names is not None:
            self._names = tuple(names)
        for index, value in enumerate(values):
            if value is None or (names is not None and not 0 <= value < len(names)):
                raise InputError(
                    f"label {index} of {self.id}, split {name}",
                    "a class",
                    value,
                    "choose a labelled split with split",
                )
        return [str(value) if names is None else names[value] for value in values]

    def _write(self, data: Any, index: int, file: Path, what: str) -> None:
        try:
            image = data[index][self.image_column]
            if not isinstance(image, Image.Image) or getattr(image, "n_frames", 1) > 1:
                raise InputError(what, "one image of one frame", type(image).__name__)
            with atomic_path(file) as temporary:
                _storable(image, what).save(temporary, format="PNG")
        except InputError:
            raise
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(what, "a readable image", error) from None


def _storable(image: Image.Image, what: str) -> Image.Image:
    """The image in a mode that PNG keeps; other colour spaces become RGB."""
    if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        return image
    if image.mode == "F":
        raise InputError(what, "8 or 16 bits", "floating-point pixels, which PNG cannot hold")
    if not image.mode.startswith("I"):
        return image.convert("RGB")
    deep = image.convert("I")
    values = np.asarray(deep)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise InputError(what, "grey values in [0, 65535]", f"values from {low} to {high}")
    return deep.convert("I;16")


def _library() -> ModuleType:
    try:
        import datasets
    except ImportError:
        raise InputError(
            "source 'huggingface'",
            "the package datasets",
            "an environment without it",
            "pip install 'jernih[hub]'",
        ) from None
    library: ModuleType = datasets
    return library
