"""FAB against the nearest points of linear models, DeepFool and another implementation."""

from __future__ import annotations

import warnings

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from jernih.attacks import FAB, DeepFool, distance
from jernih.randomness import generator
from jernih.types import Norm
from jernih.validate import InputError
from tests.attacks.known import Digits, agree, linear_model, middling, nearest_on_linear

STEPS = 20


def of_torchattacks(digits: Digits, norm: Norm, **options: object) -> Tensor:
    """The nearest adversarial images that torchattacks' FAB finds, whatever their distance."""
    torchattacks = pytest.importorskip("torchattacks", exc_type=ImportError)
    name = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    peer = torchattacks.FAB(digits.model, norm=name, steps=STEPS, n_classes=10, **options)
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        if norm == "l1":  # its outer loop knows no L1
            made: Tensor = peer.attack_single_run(digits.images, digits.labels)
        else:
            made = peer(digits.images, digits.labels)
    return made.detach()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("classes", [2, 5])
def test_linear_model_in_closed_form(norm: Norm, classes: int) -> None:
    model, images = linear_model(classes), middling()
    labels = model(images).argmax(1)
    points, sizes = nearest_on_linear(model, images, labels, norm)
    within = ((points >= 0) & (points <= 1)).flatten(1).all(1)  # in L1 one pixel may not suffice
    assert int(within.sum()) >= 8
    result = FAB(norm=norm, steps=10)(model, images, labels)
    assert bool(result.success.all())
    assert bool((result.distances >= sizes * (1 - 1e-5)).all())
    torch.testing.assert_close(result.distances[within], sizes[within], rtol=2e-3, atol=1e-6)
    torch.testing.assert_close(result.images[within], points[within], rtol=0, atol=2e-3)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_agrees_with_torchattacks(digits: Digits, norm: Norm) -> None:
    model, images, labels = digits.model, digits.images, digits.labels
    theirs = of_torchattacks(digits, norm, eps=1e6)
    result = FAB(norm=norm, steps=STEPS, final_steps=0)(model, images, labels)
    ours = result.images
    assert bool(result.success.all())
    agree(model, images, labels, ours, theirs, norm)
    sizes = distance(images, theirs, norm)
    alike = (result.distances - sizes).abs() < 0.01 * sizes
    assert float(alike.float().mean()) > 0.9
    eps = float(sizes.median())
    interval = binomtest(30, 60).proportion_ci(method="wilson")
    bounded = FAB(eps, norm=norm, steps=STEPS, final_steps=0)(model, images, labels)
    assert interval.low <= float(bounded.success.float().mean()) <= interval.high


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_not_larger_than_deepfool(digits: Digits, norm: Norm) -> None:
    model, images, labels = digits.model, digits.images, digits.labels
    ours = FAB(norm=norm, steps=STEPS)(model, images, labels)
    theirs = DeepFool(norm=norm)(model, images, labels)
    assert bool(ours.success.all())
    assert float(ours.distances.median()) <= float(theirs.distances.median())
    assert float((ours.distances <= theirs.distances).float().mean()) > 0.9


def test_final_steps_come_closer(digits: Digits) -> None:
    model, images, labels = digits.model, digits.images, digits.labels
    rough, fine = (FAB(norm="l2", steps=3, final_steps=n)(model, images, labels) for n in (0, 3))
    assert torch.equal(rough.success, fine.success)
    assert bool((fine.distances <= rough.distances).all())
    assert float(fine.distances.mean()) < 0.99 * float(rough.distances.mean())


def test_restarts_come_closer(digits: Digits) -> None:
    model, images, labels = digits.model, digits.images[:20], digits.labels[:20]
    one, three = (
        FAB(norm="l1", steps=10, restarts=n)(model, images, labels, generator=generator(0))
        for n in (1, 3)
    )
    assert bool((three.distances <= one.distances + 1e-6).all())
    assert bool((three.distances < 0.99 * one.distances).any())


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_random_starts_lie_within_the_bound(norm: Norm) -> None:
    images = torch.full((4, 3, 8, 8), 0.5)
    attack = FAB(0.02, norm=norm, restarts=2)
    sizes = torch.tensor([0.01, 0.02, 1.0, torch.inf])
    start = attack._start(images, sizes, generator(0))
    torch.testing.assert_close(
        distance(images, start, norm), torch.tensor([0.005, 0.01, 0.01, 0.01]), rtol=0.05, atol=0
    )


def test_few_classes_suffice(digits: Digits) -> None:
    few = FAB(classes=4, steps=10)(digits.model, digits.images, digits.labels)
    every = FAB(steps=10)(digits.model, digits.images, digits.labels)
    assert bool(few.success.all())
    torch.testing.assert_close(few.distances.median(), every.distances.median(), rtol=0.05, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_two_classes(two_digits: Digits, norm: Norm) -> None:
    result = FAB(norm=norm, steps=10)(two_digits.model, two_digits.images, two_digits.labels)
    assert bool(result.success.all())


def test_misclassified_images_stay(digits: Digits) -> None:
    labels = digits.labels.clone()
    labels[:30] = (labels[:30] + 1) % 10
    seen: list[int] = []
    handle = digits.model.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    result = FAB(steps=3)(digits.model, digits.images, labels)
    handle.remove()
    assert torch.equal(result.images[:30], digits.images[:30])
    assert bool(result.success[:30].all())
    assert bool((result.distances[30:] > 0).all())
    # All once, then half of them for steps and final steps, all to make sure and to recheck.
    assert seen == [60, *[30] * (2 * 3 + 1 + 3), 60, 60]


def test_images_leave_when_near_enough(digits: Digits) -> None:
    model, images, labels = digits.model, digits.images, digits.labels
    seen: list[int] = []
    handle = model.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    early = FAB(0.12, steps=10, stop_early=True)(model, images, labels)
    few = sum(seen)
    full = FAB(0.12, steps=10)(model, images, labels)
    handle.remove()
    assert torch.equal(early.success, full.success)
    assert 0 < int(full.success.sum()) < 60
    assert few < 0.7 * (sum(seen) - few)


class Wavering(nn.Module):
    """A model that is a little surer of class 0 when asked about 16 images at once."""

    def __init__(self, model: nn.Module, by: float) -> None:
        super().__init__()
        self.model = model
        self.by = by

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits + torch.tensor([self.by if len(images) == 16 else 0.0, 0.0])


@pytest.mark.parametrize(("by", "fools"), [(1e-3, True), (0.3, False)])
def test_what_the_model_takes_back(by: float, fools: bool) -> None:
    model, images, labels = linear_model(2), middling(), torch.zeros(16, dtype=torch.int64)
    labels[0] = 1
    right = model(images).argmax(1) == labels
    assert int(right.sum()) == 15
    result = FAB(norm="l2", steps=5)(Wavering(model, by).eval(), images, labels)
    assert torch.equal(result.distances > 0, right & result.success)
    assert bool(result.success[right].all()) == fools


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"norm": "l0"},
        {"restarts": 0},
        {"alpha_max": 1.5},
        {"eta": 0.9},
        {"beta": -0.1},
        {"final_steps": -1},
        {"classes": 1},
    ],
)
def test_refuses_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        FAB(**options)  # type: ignore[arg-type]
