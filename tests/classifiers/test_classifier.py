"""The classifier wrapper and its form for attacks."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from jernih.classifiers import Classifier
from jernih.validate import InputError
from tests.conftest import TinyNet, tiny_classifier


def test_normalises_inside(images: Tensor) -> None:
    classifier = tiny_classifier()
    expected = classifier.network((images - 0.5) / 0.25)
    torch.testing.assert_close(classifier(images), expected)


def test_one_logit_appears_as_two(images: Tensor) -> None:
    classifier = tiny_classifier(outputs=1)
    logits = classifier(images)
    assert logits.shape == (6, 2)
    single = classifier.network((images - 0.5) / 0.25).squeeze(1)
    torch.testing.assert_close(logits.softmax(1)[:, 1], single.sigmoid())


def test_one_logit_without_its_dimension(images: Tensor) -> None:
    class Flat(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((1, 2, 3))

    assert Classifier(Flat(), ["a", "b"])(images).shape == (6, 2)


def test_one_mean_makes_one_channel(images: Tensor) -> None:
    class Grey(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :2]

    logits = Classifier(Grey(), ["a", "b"], mean=[0.0], std=[1.0])(images)
    torch.testing.assert_close(logits, images.mean(1).flatten(1)[:, :2])


@pytest.mark.parametrize("outputs", [1, 3])
def test_frozen_form_is_the_same_function(images: Tensor, outputs: int) -> None:
    classifier = tiny_classifier(outputs)
    before = copy.deepcopy(classifier.state_dict())
    ready = classifier.frozen()
    torch.testing.assert_close(ready(images), classifier(images), rtol=0, atol=1e-4)
    norms = [m for m in ready.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 1  # norm2 follows no convolution
    assert not any(p.requires_grad for p in ready.parameters())
    assert not any(m.training for m in ready.modules())
    assert all(p.requires_grad for p in classifier.parameters())
    assert all(torch.equal(v, before[k]) for k, v in classifier.state_dict().items())


@pytest.mark.parametrize("name", ["mobilenetv2_050", "resnet10t", "test_efficientnet"])
def test_frozen_form_of_timm_models(name: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features) * 0.1
            module.running_var = torch.rand(module.num_features) + 0.5
    classifier = Classifier(network, list("abcd")).eval()
    images = torch.rand(2, 3, 64, 64)
    ready = classifier.frozen()
    torch.testing.assert_close(ready(images), classifier(images), rtol=0, atol=1e-4)
    folded = [m for m in ready.modules() if isinstance(m, nn.BatchNorm2d)]
    assert folded == []


def test_shared_convolution_is_not_folded(images: Tensor) -> None:
    class Shared(TinyNet):
        def forward(self, images: Tensor) -> Tensor:
            raw = self.conv1(images)
            return self.head((self.norm1(raw) + raw).mean((2, 3)))  # type: ignore[no-any-return]

    classifier = Classifier(Shared(), list("abc")).eval()
    classifier.network.get_submodule("norm1").running_var = torch.full((8,), 4.0)
    ready = classifier.frozen()
    torch.testing.assert_close(ready(images), classifier(images), rtol=0, atol=1e-4)


def test_network_that_cannot_be_traced_is_left(images: Tensor) -> None:
    class Branching(TinyNet):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images if float(images.mean()) < 2 else -images)

    classifier = Classifier(Branching(), list("abc")).eval()
    ready = classifier.frozen()
    torch.testing.assert_close(ready(images), classifier(images), rtol=0, atol=1e-4)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in ready.modules()) == 3


def test_refuses_what_does_not_fit(images: Tensor) -> None:
    with pytest.raises(InputError, match="two or more distinct names"):
        Classifier(TinyNet(), ["a", "a", "b"])
    with pytest.raises(InputError, match="positive values"):
        Classifier(TinyNet(), ["a", "b", "c"], std=(1.0, 0.0, 1.0))
    with pytest.raises(InputError, match="4 logits, one for each class"):
        Classifier(TinyNet(3), list("abcd")).eval()(images)
