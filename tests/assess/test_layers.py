"""The table of layers counts what there is and touches nothing."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jernih.assess.layers import layer_summary
from jernih.classifiers import Classifier
from jernih.purifiers import PURIFIERS
from jernih.validate import InputError
from tests.conftest import TinyNet, tiny_classifier


class Shared(nn.Module):
    """A layer used twice, weights used by two layers, and a parameter outside of any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.second.weight = self.first.weight
        self.shift = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        hidden: Tensor = self.second(self.first(self.first(images + self.shift)))
        return hidden


def total(text: str) -> int:
    name, _, count = text.splitlines()[-1].partition(": ")
    assert name == "Parameters"
    return int(count.replace(",", ""))


@pytest.mark.parametrize("make", [TinyNet, tiny_classifier, Shared, nn.Identity])
def test_the_total_is_the_number_of_parameters(make: type[nn.Module]) -> None:
    module = make()
    assert total(layer_summary(module, 32)) == sum(p.numel() for p in module.parameters())


def test_lines_name_layers_shapes_and_parameters() -> None:
    text = layer_summary(tiny_classifier(), 32)
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "│ └─Conv2d (conv1) [1, 8, 16, 16] 224" in rows
    assert "│ └─Linear (head) [1, 3] 27" in rows
    assert rows[0] == "Layer (type (var_name)) Output Shape Param #"
    assert "\x1b" not in text
    assert "conv1" not in layer_summary(tiny_classifier(), 32, depth=1)
    assert "(224)" in layer_summary(tiny_classifier().requires_grad_(False), 32)


@pytest.mark.parametrize("name", PURIFIERS.names())
def test_every_purifier_has_a_table(name: str) -> None:
    options: dict[str, dict[str, Any]] = {
        "skip-vae": {"image_size": 64, "widths": (4, 8, 8), "latent": 8},
        "ensemble": {"members": ("conv-autoencoder", "unet")},
    }
    purifier = PURIFIERS.create(name, **options.get(name, {}))
    text = layer_summary(purifier, 64)
    assert type(purifier).__name__ in text
    assert "[1, 3, 64, 64]" in text
    assert total(text) == sum(p.numel() for p in purifier.parameters())


def test_leaves_everything_as_it_was() -> None:
    classifier = tiny_classifier()
    classifier.network.train()
    classifier.network.get_submodule("norm1").eval()
    modes = [module.training for module in classifier.modules()]
    state = {name: value.clone() for name, value in classifier.state_dict().items()}
    random = torch.get_rng_state()
    layer_summary(classifier, 32)
    assert [module.training for module in classifier.modules()] == modes
    assert all(torch.equal(value, state[n]) for n, value in classifier.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in classifier.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in classifier.modules())
    assert torch.equal(torch.get_rng_state(), random)


def test_torchscript_has_a_table_without_shapes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(TinyNet().eval(), torch.rand(1, 3, 32, 32))  # type: ignore[no-untyped-call]
    text = layer_summary(Classifier(traced, ["a", "b", "c"]), 32)
    assert total(text) == sum(p.numel() for p in TinyNet().parameters())


def test_what_the_module_refuses_is_told_in_its_own_words() -> None:
    with pytest.raises(InputError, match="network output: expected 2 logits"):
        layer_summary(Classifier(TinyNet(3), ["no", "yes"]), 32)
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        layer_summary(nn.Conv2d(3, 2, 9), 4)
