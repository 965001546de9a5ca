"""Activations of the prepared network: the same values and gradients as torch's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from jernih.attacks.gradients import gradients
from jernih.classifiers.prepare import spare_copies
from jernih.randomness import generator, seeded


def network(activation: nn.Module) -> nn.Module:
    with seeded("prepare"):
        layers = nn.Sequential(
            nn.Conv2d(3, 8, 3), activation, nn.Conv2d(8, 8, 3), copy.deepcopy(activation)
        )
        return nn.Sequential(layers, nn.Flatten(), nn.LazyLinear(5)).eval()


@pytest.fixture
def images() -> Tensor:
    return 12 * torch.rand(4, 3, 8, 8, generator=generator("prepare")) - 3


@pytest.mark.parametrize(
    "activation",
    [
        nn.ReLU6(inplace=True),
        nn.Hardtanh(-0.5, 0.7, inplace=True),
        nn.SiLU(inplace=True),
        nn.Hardswish(inplace=True),
        nn.Mish(inplace=True),
        nn.ReLU(inplace=True),
    ],
    ids=lambda a: type(a).__name__,
)
def test_same_logits_and_gradients(activation: nn.Module, images: Tensor) -> None:
    before = network(activation)
    before(images)
    after = spare_copies(copy.deepcopy(before)).requires_grad_(False)
    assert not any(
        getattr(m, "inplace", False) and not isinstance(m, nn.ReLU) for m in after.modules()
    )
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    expected, got = before(theirs), after(ours)
    assert torch.equal(got, expected)
    (expected_slope,) = torch.autograd.grad(expected.square().sum(), theirs)
    (slope,) = torch.autograd.grad(got.square().sum(), ours)
    assert float(slope.abs().max()) > 0
    assert torch.equal(slope, expected_slope)
    with torch.no_grad():
        assert torch.equal(after(images), expected)


def test_gradients_of_many_logits_at_once(images: Tensor) -> None:
    before = network(nn.ReLU6(inplace=True))
    before(images)
    after = spare_copies(copy.deepcopy(before)).requires_grad_(False)
    inputs = images.clone().requires_grad_()
    (at_once,) = gradients(after(inputs), inputs)
    for column in range(5):
        leaf = images.clone().requires_grad_()
        (alone,) = torch.autograd.grad(before(leaf)[:, column].sum(), leaf)
        torch.testing.assert_close(at_once[column], alone)


def test_clips_at_the_very_bounds_have_no_slope() -> None:
    clip = spare_copies(nn.Sequential(nn.ReLU6(inplace=True)))
    values = torch.tensor([[-1.0, 0.0, 3.0, 6.0, 7.0]]).requires_grad_()
    (slope,) = torch.autograd.grad(clip(values * 1.0).sum(), values)
    assert slope.tolist() == [[0, 0, 1, 0, 0]]
