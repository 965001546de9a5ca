"""Small data sets that the tests share, and a way to wait."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jernih.config import RunConfig, load_config
from jernih.data.images import write_png
from jernih.data.manifest import Manifest, Record
from jernih.data.modify import Augment, ImageDataset, Prepare
from jernih.randomness import generator
from jernih.storage import sha256_file


def wait_until(holds: Callable[[], bool], seconds: float = 10) -> bool:
    """Return once it holds, or when the time is up; whether it held."""
    limit = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < limit:
        time.sleep(0.05)
    return held


def striped_folder(root: Path, each: int = 8, size: int = 32, classes: str = "ab") -> Path:
    """Write class folders of noisy stripes, across for one class and along for the other."""
    if root.is_dir():
        return root
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


def edge_network() -> nn.Module:
    """A network that tells the stripes apart, for a config's ``tests.helpers:edge_network``."""
    return Edges()


class Edges(nn.Module):
    """Mean absolute differences along and across, with dropout: enough to tell stripes apart."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(2, 2)

    def forward(self, images: Tensor) -> Tensor:
        across = images.diff(dim=2).abs().mean((1, 2, 3))
        along = images.diff(dim=3).abs().mean((1, 2, 3))
        logits: Tensor = self.head(self.dropout(torch.stack([across, along], 1) * 10))
        return logits


def small_run(root: Path, **changes: Any) -> RunConfig:
    """A run over stripes that takes seconds."""
    striped_folder(root / "images", each=40)
    overrides = {
        "title": "stripes",
        "out": str(root / "run"),
        "sample.source": {"name": "folder", "path": str(root / "images")},
        "modify.size": 32,
        "modify.rotation": 0,
        "model.classifier": {"name": "tests.helpers:edge_network"},
        "model.classifier_training": {"epochs": 3, "batch_size": 8, "lr": 0.1},
        "model.epsilons": [0.2],
        "model.purifier": {"name": "conv-autoencoder", "widths": [4]},
        "model.purifier_training": {"epochs": 2, "batch_size": 8, "lr": 0.01},
        "model.fpr": 0.2,
        "assess.batch_size": 8,
        **changes,
    }
    return load_config(None, [f"{key}={json.dumps(value)}" for key, value in overrides.items()])
