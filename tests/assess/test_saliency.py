"""Grad-CAM: against formulas and a plain implementation, on many kinds of networks."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from jernih.assess.figures.saliency import SaliencyRow, draw_important_areas
from jernih.assess.figures.style import COLOURS, save_figure
from jernih.assess.saliency import important_areas
from jernih.classifiers import Classifier
from jernih.randomness import generator, seeded
from jernih.validate import InputError
from tests.conftest import tiny_classifier


class Plain(nn.Module):
    """Convolution, ReLU in place, mean over the image, linear layer."""

    def __init__(self, outputs: int, stride: int = 2) -> None:
        super().__init__()
        with seeded(outputs):
            self.conv = nn.Conv2d(3, 6, 3, stride=stride, padding=1)
            self.act = nn.ReLU(inplace=True)
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.head = nn.Linear(6, outputs)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.act(self.conv(images))).flatten(1))
        return logits


def plain(outputs: int) -> Classifier:
    return Classifier(Plain(outputs), [f"class{i}" for i in range(max(outputs, 2))])


def by_formula(classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
    """For a mean and a linear head the gradient of every map is the head's row, but for a scale."""
    network = classifier.network
    assert isinstance(network, Plain)
    with torch.no_grad():
        maps = torch.relu(network.conv(images))
        rows = network.head.weight
        if len(rows) == 1:
            rows = torch.cat([torch.zeros_like(rows), rows])
        logits = classifier(images)
        found = []
        for one, target, logit in zip(maps, targets.tolist(), logits, strict=True):
            rest = [k for k in range(len(rows)) if k != target]
            share = logit[rest].softmax(0)
            row = rows[target] - (share[:, None] * rows[rest]).sum(0)
            found.append((row[:, None, None] * one).sum(0).relu())
    size = tuple(images.shape[-2:])
    areas = functional.interpolate(torch.stack(found)[:, None], size, mode="bilinear")[:, 0]
    return areas / areas.amax((1, 2), keepdim=True).clamp_min(1e-30)


@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_agrees_with_the_formula_for_every_class(outputs: int, images: Tensor) -> None:
    classifier = plain(outputs)
    for target in range(len(classifier.classes)):
        targets = torch.full((len(images),), target)
        areas = important_areas(classifier, images, targets)
        torch.testing.assert_close(areas, by_formula(classifier, images, targets))
        assert areas.shape == (6, 32, 32)
        assert areas.dtype is torch.float32
        highest = areas.amax((1, 2))
        assert bool(((highest == 0) | (highest == 1)).all())
        assert float(areas.min()) >= 0


def test_the_predicted_class_is_asked_about_by_default(images: Tensor) -> None:
    classifier = plain(5)
    predicted = classifier(images).argmax(1)
    assert torch.equal(
        important_areas(classifier, images), important_areas(classifier, images, predicted)
    )


def test_one_logit_has_areas_for_either_class(images: Tensor) -> None:
    classifier = Classifier(Plain(1, stride=1), ["no", "yes"])
    no, yes = (important_areas(classifier, images, torch.full((6,), k)) for k in (0, 1))
    assert float(no.amax()) == float(yes.amax()) == 1
    assert float((no * yes).max()) == 0  # what speaks for one class speaks against the other


def test_finds_the_place_that_matters() -> None:
    network = Plain(1, stride=1)
    with torch.no_grad():
        nn.init.zeros_(network.conv.weight)
        nn.init.zeros_(network.conv.bias)  # type: ignore[arg-type]
        network.conv.weight[0, :, 1, 1] = 1
        nn.init.ones_(network.head.weight)
        nn.init.constant_(network.head.bias, -0.1)
    classifier = Classifier(network, ["dark", "bright"])
    images = torch.zeros(3, 3, 24, 40)
    images[1, :, 4:8, 30:36] = 0.7
    images[2, :, 20:22, 2:5] = 1e-20
    bright = important_areas(classifier, images, torch.ones(3, dtype=torch.int64))
    assert float(bright[0].abs().max()) == 0
    assert torch.equal(bright[1] > 0, images[1, 0] > 0)
    assert torch.equal(bright[2] > 0, images[2, 0] > 0)
    assert float(important_areas(classifier, images, torch.zeros(3, dtype=torch.int64)).max()) == 0


@pytest.mark.parametrize("name", ["legacy_xception", "mobilenetv2_100"])
def test_networks_of_timm_with_layers_in_place(name: str) -> None:
    with seeded(name):
        network = timm.create_model(name, pretrained=False, num_classes=1)
        # Statistics of random layers shrink or grow with depth; those of the batch do not.
        images = torch.rand(2, 3, 64, 64, generator=generator("timm"))
        network.train()(images.repeat(2, 1, 1, 1))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        network(images.repeat(2, 1, 1, 1))
    classifier = Classifier(network.eval(), ["healthy", "ill"])
    inplace = [m for m in network.modules() if getattr(m, "inplace", False)]
    assert inplace
    for target in (0, 1):
        targets = torch.full((2,), target)
        areas = important_areas(classifier, images, targets)
        torch.testing.assert_close(areas, by_hand(classifier, images, target), atol=1e-3, rtol=1e-3)
        assert float(areas.max()) == 1
    assert all(getattr(module, "inplace") for module in inplace)  # noqa: B009 - mypy
    torch.testing.assert_close(
        important_areas(classifier.frozen(), images, targets), areas, atol=1e-2, rtol=1e-2
    )


def by_hand(classifier: Classifier, images: Tensor, target: int) -> Tensor:
    """Grad-CAM of a timm network's features with autograd alone."""
    network = classifier.network
    maps = network.forward_features(images)  # type: ignore[operator]
    z = network.forward_head(maps)[:, 0]  # type: ignore[operator]
    (gradient,) = torch.autograd.grad((z if target else -z).sum(), maps)
    areas = (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu().detach()
    areas = functional.interpolate(areas, tuple(images.shape[-2:]), mode="bilinear")[:, 0]
    return areas / areas.amax((1, 2), keepdim=True).clamp_min(1e-30)


def test_many_images_are_as_good_as_one() -> None:
    classifier = tiny_classifier()
    images = torch.rand(35, 3, 16, 16, generator=generator("many"))
    targets = torch.arange(35) % 3
    together = important_areas(classifier, images, targets)
    for i in (0, 16, 34):
        alone = important_areas(classifier, images[i : i + 1], targets[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


class Twice(nn.Module):
    """One ReLU for the maps and, after that, for what is pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.act(self.pool(self.act(self.conv(images))))).flatten(1)  # type: ignore[no-any-return]


class ChannelsLast(nn.Module):
    """Maps whose channels come last, as in Swin, after maps as usual."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 4, stride=4)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 2)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.norm(self.embed(images).permute(0, 2, 3, 1))
        return self.head(tokens.mean((1, 2)))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Attention between the pixels of maps, whose matrices look like maps."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 8, stride=8)
        self.softmax = nn.Softmax(-1)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(16, 2)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images).flatten(2).transpose(1, 2)[:, None]
        mixed = self.drop(self.softmax(tokens @ tokens.transpose(2, 3))) @ tokens
        return self.head(mixed.mean((1, 2)))  # type: ignore[no-any-return]


class Branches(nn.Module):
    """Two convolutions side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 4, 3, padding=1)
        self.right = nn.Conv2d(3, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.left(images), self.right(images)], 1)


class Branched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both = Branches()
        self.head = nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.both(images).relu_().mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("make", "layer"),
    [(Twice, "conv"), (ChannelsLast, "embed"), (Attention, "embed"), (Branched, "both")],
)
def test_the_last_layer_with_maps_is_found(
    make: type[nn.Module], layer: str, images: Tensor
) -> None:
    with seeded(0):
        classifier = Classifier(make(), ["no", "yes"])
    found = important_areas(classifier, images)
    assert torch.equal(found, important_areas(classifier, images, layer=layer))
    assert float(found.max()) == 1


def test_a_layer_can_be_chosen(images: Tensor) -> None:
    classifier = tiny_classifier()
    last = important_areas(classifier, images)
    assert torch.equal(last, important_areas(classifier, images, layer="norm3"))
    assert not torch.equal(last, important_areas(classifier, images, layer="conv1"))
    with pytest.raises(InputError, match=r"layer: .*got 'norm4' \(nearest: 'norm3'\)"):
        important_areas(classifier, images, layer="norm4")
    with pytest.raises(InputError, match=r"layer 'head': expected feature maps .* shape \(1, 3\)"):
        important_areas(classifier, images, layer="head")
    nested = Classifier(nn.Sequential(Plain(2), nn.Identity()), ["no", "yes"])
    assert important_areas(nested, images, layer="0.conv").shape == (6, 32, 32)


def test_networks_without_maps_are_refused(images: Tensor) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    example = images[:2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(Plain(2).eval(), example)  # type: ignore[no-untyped-call]
    dims = ({0: torch.export.Dim("batch", min=1, max=64)},)
    exported = torch.export.export(Plain(2).eval(), (example,), dynamic_shapes=dims).module()
    for network in (flat, traced, exported):
        with pytest.raises(InputError, match="a network with feature maps"):
            important_areas(Classifier(network, ["no", "yes"]), images)


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_leaves_everything_as_it_was(context: type, images: Tensor) -> None:
    classifier = tiny_classifier().train()
    classifier.network.get_submodule("norm1").eval()
    classifier(images).sum().backward()
    modes = [module.training for module in classifier.modules()]
    state = {name: value.clone() for name, value in classifier.state_dict().items()}
    gradients = [p.grad.clone() for p in classifier.parameters() if p.grad is not None]
    before, random = images.clone().requires_grad_(), torch.get_rng_state()
    with context():
        areas = important_areas(classifier, before)
    assert not areas.requires_grad
    assert before.grad is None
    assert torch.equal(before, images)
    assert [module.training for module in classifier.modules()] == modes
    assert all(torch.equal(value, state[n]) for n, value in classifier.state_dict().items())
    assert all(p.requires_grad for p in classifier.parameters())
    for parameter, gradient in zip(classifier.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, gradient)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in classifier.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(areas, important_areas(classifier.eval(), images))


def test_bad_images_and_targets_are_refused(images: Tensor) -> None:
    classifier = tiny_classifier()
    with pytest.raises(InputError, match=r"images: expected values in \[0, 1\]"):
        important_areas(classifier, images * 3)
    for targets, got in (
        (torch.zeros(6), "float32"),
        (torch.zeros(5, dtype=torch.int64), r"shape \(5,\)"),
        (torch.full((6,), 3), "3"),
        (torch.full((6,), -1), "-1"),
    ):
        with pytest.raises(InputError, match=rf"targets: expected int64 class .*; got .*{got}"):
            important_areas(classifier, images, targets)


def row(case: str = "first image", true: str = "ill") -> SaliencyRow:
    rng = np.random.default_rng(0)
    answers = (("ill", 0.9, True), ("healthy", 0.625, False), ("ill", 0.5, True))
    return SaliencyRow(case, true, rng.random((3, 3, 8, 12)), rng.random((3, 8, 12)), answers)


def test_the_areas_are_drawn_over_the_images(tmp_path: Path) -> None:
    rows = [row(), row("attack succeeded, restored", "a name that is longer than its panel")]
    figure = draw_important_areas(rows, "Important areas (fgsm, n = 2)")
    assert figure.get_suptitle() == "Important areas (fgsm, n = 2)"
    assert len(figure.axes) == 6
    assert [axes.get_title() for axes in figure.axes[:3]] == [
        "clean: ill ✓\n90.0 % sure",
        "attacked: healthy ✗\n62.5 % sure",
        "restored: ill ✓\n50.0 % sure",
    ]
    colours = [axes.title.get_color() for axes in figure.axes[:3]]
    assert colours == ["black", COLOURS["attacked"], "black"]
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels[0] == "first image\n(true: ill)"
    assert labels[3] == "attack succeeded, restored\n(true: a name that is lo…)"
    image, heat = figure.axes[1].images
    assert np.array_equal(image.get_array(), rows[0].images[1].transpose(1, 2, 0))  # type: ignore[arg-type]
    assert np.array_equal(heat.get_array(), rows[0].maps[1])  # type: ignore[arg-type]
    opacity = np.asarray(heat.get_alpha())
    assert np.array_equal(opacity.argsort(axis=None), rows[0].maps[1].argsort(axis=None))
    assert save_figure(figure, tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="rows: expected at least one"):
        draw_important_areas([], "t")
    short = dataclasses.replace(row(), maps=row().maps[:2])
    with pytest.raises(InputError, match=r"row 'first image': .* got \(3, 2, 3\)"):
        draw_important_areas([short], "t")
