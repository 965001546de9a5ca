"""Small models and images that the tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jernih.attacks import ATTACKS
from jernih.classifiers import Classifier
from jernih.detectors import DETECTORS
from jernih.purifiers import PURIFIERS
from jernih.randomness import generator, seeded
from jernih.registry import Registry

# For models this small a second thread only waits for the first, most of all on a busy machine.
torch.set_num_threads(1)

SHARED = Path(os.environ.get("JERNIH_SHARED", Path(__file__).parents[2] / "shared"))


class TinyNet(nn.Module):
    """Two convolutions with batch norm, one of them not foldable, and dropout."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm1 = nn.BatchNorm2d(8)
        self.norm2 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm3 = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, outputs)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.norm1(self.conv1(images)))
        hidden = torch.relu(self.norm3(self.conv2(self.norm2(hidden))))
        logits: Tensor = self.head(self.dropout(hidden.mean((2, 3))))
        return logits


def tiny_classifier(outputs: int = 3, seed: int = 0) -> Classifier:
    """A classifier with random weights and batch-norm statistics that are not the initial ones."""
    with seeded(seed):
        network = TinyNet(outputs)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
                module.running_mean = torch.randn(module.num_features)
                module.running_var = torch.rand(module.num_features) + 0.5
    classes = [f"class{i}" for i in range(max(outputs, 2))]
    return Classifier(network, classes, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)).eval()


@pytest.fixture
def classifier() -> Classifier:
    return tiny_classifier()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 3, 32, 32, generator=generator("images"))


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.fixture
def own_units() -> Iterator[None]:
    """Units that a test registers are forgotten after it."""
    registries: tuple[Registry[Any], ...] = (ATTACKS, DETECTORS, PURIFIERS)
    units = [dict(registry._units) for registry in registries]
    yield
    for registry, before in zip(registries, units, strict=True):
        registry._units.clear()
        registry._units.update(before)


@pytest.fixture
def shared() -> Path:
    """The folder of real data, which users do not have."""
    if not SHARED.is_dir():
        pytest.skip("the shared data is not here")
    return SHARED
