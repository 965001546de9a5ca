"""Synthetic chest radiographs as a data source, with some spoilt files among them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from jernih.data.phantom import LABELS, Label, Patient, expose
from jernih.data.sources.base import SOURCES, DataSource, Item
from jernih.storage import atomic_path, fingerprint
from jernih.validate import InputError, check_number

VERSION = 1
"""Raised with every change to the images, so that an older folder is not taken for a newer one."""


@SOURCES.register("phantom")
class Phantom(DataSource):
    """Synthetic chest radiographs, made where they are missing.

    Each of the two classes consists of invented patients with one to three images each. The files
    are 8-bit greyscale PNGs. Every patient and image has a seed of its own, so that an interrupted
    run goes on where it stopped and makes the same bytes. The images say nothing clinical.

    Args:
        images: number of images, without the planted defects; at least 4.
        size: width and height in pixels, 32 to 2048.
        pneumonia: share of images of the class PNEUMONIA, between 0 and 1.
        seed: seed of all images.
        defects: plant what Explore has to find: two exact copies, a near copy (JPEG, a little
            brighter), a truncated file, and a blank, a blurred and a dark image. Their names
            begin with ``phantom-defect``.

    Raises:
        InputError: for an option out of range.
    """

    def __init__(
        self,
        images: int = 600,
        size: int = 224,
        pneumonia: float = 0.5,
        seed: int = 0,
        defects: bool = True,
    ) -> None:
        for name, value, low, high in (
            ("images", images, 4, 1_000_000),
            ("size", size, 32, 2048),
            ("seed", seed, 0, 2**63 - 1),
        ):
            check_number(name, value, low, high)
            if int(value) != value:
                raise InputError(name, "a whole number", value)
        if not 0 < check_number("pneumonia", pneumonia, 0, 1) < 1:
            raise InputError("pneumonia", "a share strictly between 0 and 1", pneumonia)
        self.images, self.size, self.seed = int(images), int(size), int(seed)
        self.pneumonia = float(pneumonia)
        self.defects = bool(defects)

    def find(self, workdir: Path) -> Iterator[Item]:
        """Make the files that are missing and yield all of them.

        Files of other options lie in other subfolders of ``workdir`` and are never mixed in.
        """
        options = [VERSION, self.images, self.size, self.pneumonia, self.seed, self.defects]
        root = workdir / f"phantom-{fingerprint(options)[:12]}"
        made: dict[Label, list[Path]] = {}
        many = min(max(round(self.images * self.pneumonia), 1), self.images - 1)
        for label, count in zip(LABELS, (self.images - many, many), strict=True):
            made[label] = list(self._radiographs(root / label, label, count))
        if self.defects:
            planted = list(self._plant(made, root))
            for label, path in planted:
                made[label].append(path)
        for label, paths in made.items():
            for path in paths:
                yield Item(path, label, patient=_patient(path))

    def _radiographs(self, folder: Path, label: Label, count: int) -> Iterator[Path]:
        """Yield ``count`` images of patients of one class, making what is missing."""
        kind = LABELS.index(label)
        person = 0
        while count > 0:
            rng = np.random.default_rng([self.seed, kind, person])
            shots = min(int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15])), count)
            patient = Patient.draw(rng, label)
            for shot in range(shots):
                path = folder / f"phantom-{label[0].lower()}{person:04d}-{shot}.png"
                if not path.exists():
                    taken = np.random.default_rng([self.seed, kind, person, shot + 1])
                    grey = np.rint(expose(patient, taken, self.size) * 255).astype(np.uint8)
                    with atomic_path(path) as temporary:
                        Image.fromarray(grey).save(temporary, format="PNG")
                yield path
            count -= shots
            person += 1

    def _plant(self, made: dict[Label, list[Path]], root: Path) -> Iterator[tuple[Label, Path]]:
        """Yield the spoilt files with their labels; each is made from a sound image."""
        plan: tuple[tuple[str, str, Callable[[Path, Path], None]], ...] = (
            ("copy-a", ".png", _copy),
            ("copy-b", ".png", _copy),
            ("near", ".jpg", _near),
            ("truncated", ".png", _truncated),
            ("blank", ".png", _blank),
            ("blurred", ".png", _blurred),
            ("dark", ".png", _dark),
        )
        for number, (name, suffix, spoil) in enumerate(plan):
            label = LABELS[number % 2]
            sound = made[label][(number * 7) % len(made[label])]
            path = root / label / f"phantom-defect-{name}-of-{_patient(sound)}{suffix}"
            if not path.exists():
                with atomic_path(path) as temporary:
                    spoil(sound, temporary)
            yield label, path


def _patient(path: Path) -> str:
    """The patient that a file's name carries."""
    found = re.search(r"[np]\d{4,}(?=-\d+$|$)", path.stem)
    return found.group() if found else ""


def _copy(sound: Path, target: Path) -> None:
    shutil.copyfile(sound, target)


def _near(sound: Path, target: Path) -> None:
    with Image.open(sound) as image:
        image.point(lambda grey: grey * 1.03).save(target, format="JPEG", quality=60)


def _truncated(sound: Path, target: Path) -> None:
    content = sound.read_bytes()
    target.write_bytes(content[: len(content) * 2 // 3])


def _blank(sound: Path, target: Path) -> None:
    with Image.open(sound) as image:
        Image.new("L", image.size, 128).save(target, format="PNG")


def _blurred(sound: Path, target: Path) -> None:
    with Image.open(sound) as image:
        radius = 0.06 * image.width
        image.filter(ImageFilter.GaussianBlur(radius)).save(target, format="PNG")


def _dark(sound: Path, target: Path) -> None:
    with Image.open(sound) as image:
        image.point(lambda grey: grey * 0.12).save(target, format="PNG")
