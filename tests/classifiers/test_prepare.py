"""Activations of the prepared network: the same values and gradients as torch's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from jernih.attacks.gradients import gradients
from jernih.classifiers.prepare import fold_batch_norm, join_clips, spare_copies
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


def joined(network: nn.Module) -> int:
    """How many activations :func:`join_clips` has taken away."""
    ready = join_clips(fold_batch_norm(network.eval().requires_grad_(False)))
    return sum(type(layer).__name__ == "_ClippedConvolution" for layer in ready.modules())


class Branches(nn.Module):
    """What lies between the convolutions is used twice."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.clip, self.where = nn.ReLU(), where

    def forward(self, images: Tensor) -> Tensor:
        before = self.first(images)
        after = self.clip(before)
        extra = {"before": before, "after": after, "image": images}[self.where]
        found: Tensor = self.last(after) + extra
        return self.last(found) if self.where == "image" else found


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU6(inplace=True), nn.Hardtanh(-0.5, 0.7), nn.ReLU(inplace=True)],
    ids=lambda a: type(a).__name__,
)
@pytest.mark.parametrize("last", [{}, {"groups": 8}, {"stride": 2, "padding": 1, "bias": False}])
def test_joined_layers_answer_alike(
    activation: nn.Module, last: dict[str, int], images: Tensor
) -> None:
    with seeded("joined"):
        before = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Identity(), activation),
            nn.Conv2d(8, 8, 3, **last),  # type: ignore[arg-type]
            nn.Flatten(),
            nn.LazyLinear(5),
        ).eval()
        before(images)
    after = copy.deepcopy(before).requires_grad_(False)
    assert joined(after) == 1
    leaf = images.clone().requires_grad_()
    expected = before(leaf)
    (expected_slope,) = torch.autograd.grad(expected.square().sum(), leaf)
    inputs = images.clone().requires_grad_()
    got = after(inputs)
    (slope,) = torch.autograd.grad(got.square().sum(), inputs, retain_graph=True)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(slope, expected_slope)
    (again,) = torch.autograd.grad(got.square().sum(), inputs)
    assert torch.equal(again, slope)
    assert torch.equal(inputs, images)
    with torch.no_grad():
        torch.testing.assert_close(after(images), expected)


def test_many_gradients_through_joined_layers(images: Tensor) -> None:
    before = network(nn.ReLU6(inplace=True))
    before(images)
    after = copy.deepcopy(before)
    assert joined(after) == 1
    inputs = images.clone().requires_grad_()
    (at_once,) = gradients(after(inputs), inputs)
    for column in range(5):
        leaf = images.clone().requires_grad_()
        (alone,) = torch.autograd.grad(before(leaf)[:, column].sum(), leaf)
        torch.testing.assert_close(at_once[column], alone)


@pytest.mark.parametrize(
    "apart",
    [
        nn.Sequential(nn.ReLU(), nn.Conv2d(3, 3, 3)),
        nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 3, 3)),
        nn.Sequential(nn.Conv2d(3, 3, 3), nn.SiLU(), nn.Conv2d(3, 3, 3)),
        nn.Sequential(
            nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")
        ),
        nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3, padding="same")),
        nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()] * 2),
        Branches("before"),
        Branches("after"),
        Branches("image"),
    ],
)
def test_other_layers_stay_apart(apart: nn.Module) -> None:
    assert joined(apart) == 0


def test_joined_layers_can_learn_again(images: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    plain = copy.deepcopy(net)
    assert joined(net) == 1
    for one in (net, plain):
        one.requires_grad_(True)
        one(images).square().sum().backward()
    for got, wanted in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(got.grad, wanted.grad)


def test_joined_layers_under_autocast(images: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    plain = copy.deepcopy(net)
    assert joined(net) == 1
    found = []
    for one in (net, plain):
        leaf = images.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = one(leaf)
        assert logits.dtype is torch.bfloat16
        found.append(torch.autograd.grad(logits.float().square().sum(), leaf)[0])
    torch.testing.assert_close(found[0], found[1])
