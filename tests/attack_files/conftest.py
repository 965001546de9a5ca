"""A classifier of stripes that is right, and stripes as files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jernih.attack_files import Images, find_images, find_source
from jernih.classifiers import Classifier
from tests.helpers import Edges, striped_folder


def stripes_classifier() -> Classifier:
    """A classifier that tells stripes across, class a, from stripes along, class b."""
    network = Edges()
    network.head.weight.data = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    network.head.bias.data.zero_()
    description = {"name": "tests.helpers:edge_network"}
    return Classifier(network, ["a", "b"], description=description).eval()


@pytest.fixture
def stripes() -> Classifier:
    return stripes_classifier()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight images in the folders a and b."""
    return striped_folder(tmp_path / "data", each=4)


@pytest.fixture
def images(folder: Path, tmp_path: Path) -> Images:
    return find_images(find_source(str(folder)), tmp_path)
