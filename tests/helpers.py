"""Small data sets that the tests share."""

from __future__ import annotations

from pathlib import Path

import torch

from jernih.data.images import write_png
from jernih.data.manifest import Manifest, Record
from jernih.data.modify import Augment, ImageDataset, Prepare
from jernih.randomness import generator
from jernih.storage import sha256_file


def striped_folder(root: Path, each: int = 8, size: int = 32, classes: str = "ab") -> Path:
    """Write class folders of noisy stripes, across for one class and along for the other."""
    for number, label in enumerate(classes):
        for index in range(each):
            source = generator(number, index)
            wave = (torch.arange(size) * 1.5).sin() * 0.3 + 0.5
            stripes = wave.expand(size, size) if number % 2 else wave.expand(size, size).T
            noise = torch.rand(3, size, size, generator=source) * 0.1 - 0.05
            write_png(root / label / f"p{index}-{label}.png", (stripes + noise).clamp(0, 1))
    return root


def striped_manifest(root: Path, each: int = 8, size: int = 32) -> Manifest:
    """A manifest over :func:`striped_folder`: of every four images two train, one val, one test."""
    striped_folder(root, each, size)
    splits = ("train", "train", "val", "test")
    records = tuple(
        Record(path, path.parent.name, splits[number % 4], "", sha256_file(path))
        for label in "ab"
        for number, path in enumerate(sorted((root / label).iterdir()))
    )
    return Manifest({"name": "striped"}, ("a", "b"), records, 0)


def datasets(manifest: Manifest, size: int = 32) -> dict[str, ImageDataset]:
    """The data sets of a manifest's splits."""
    prepare, augment = Prepare(size), Augment(rotation=0, zoom=(1.0, 1.0))
    return {
        name: ImageDataset(manifest.split(name), prepare, augment if name == "train" else None)
        for name in ("train", "val", "test")
    }
