"""Carlini & Wagner's L2 attack against known nearest points and other implementations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from jernih.attacks import CarliniWagner, distance
from jernih.attacks.losses import margin
from jernih.attacks.penalty import Adam, Progress, Weights, from_tanh, hinge, to_tanh
from jernih.validate import InputError
from tests.attacks.gradient_peers import of_art
from tests.attacks.known import (
    Digits,
    agree,
    inner,
    linear_model,
    middling,
    nearest_on_linear,
    share_agrees,
)


@pytest.mark.parametrize("classes", [2, 4])
def test_linear_model_in_closed_form(classes: int) -> None:
    model, images = linear_model(classes), middling()
    labels = model(images).argmax(1)
    points, sizes = nearest_on_linear(model, images, labels, "l2")
    # A step of Adam has the length of rate / 2 times the root of 48 pixels.
    result = CarliniWagner(searches=8, steps=250, learning_rate=0.003)(model, images, labels)
    assert bool(result.success.all())
    torch.testing.assert_close(result.distances, sizes, rtol=0.01, atol=0.003)
    assert bool((result.distances >= sizes - 1e-5).all())
    torch.testing.assert_close(result.images, points, rtol=0, atol=0.005)


def foolbox_made(digits: Digits, goal: str, labels: Tensor, searches: int, steps: int) -> Tensor:
    foolbox = pytest.importorskip("foolbox", exc_type=ImportError)
    attack = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=searches, steps=steps)
    model = foolbox.PyTorchModel(digits.model, bounds=(0, 1), device="cpu")
    criterion = getattr(foolbox.criteria, goal)(labels)
    made: Tensor = attack(model, digits.images, criterion, epsilons=None)[0]
    return made


def test_agrees_with_foolbox(digits: Digits) -> None:
    grey = inner(digits, 25)
    theirs = foolbox_made(grey, "Misclassification", grey.labels, 5, 150)
    ours = CarliniWagner(searches=5, steps=150)(grey.model, grey.images, grey.labels).images
    agree(grey.model, grey.images, grey.labels, ours, theirs, "l2")


def test_agrees_with_foolbox_targeted(digits: Digits) -> None:
    grey = inner(digits, 12)
    wanted = (grey.labels + 1) % 10
    theirs = foolbox_made(grey, "TargetedMisclassification", wanted, 6, 200)
    attack = CarliniWagner(targeted=True, searches=6, steps=200)
    ours = attack(grey.model, grey.images, wanted).images
    agree(grey.model, grey.images, wanted, ours, theirs, "l2", targeted=True)


def test_goes_beyond_foolbox_on_black_and_white(digits: Digits) -> None:
    some = Digits(digits.model, digits.images[:20], digits.labels[:20])
    theirs = foolbox_made(some, "Misclassification", some.labels, 5, 60)
    ours = CarliniWagner(searches=5, steps=60)(some.model, some.images, some.labels)
    fooled = some.model(theirs).argmax(1) != some.labels
    assert int(ours.success.sum()) >= int(fooled.sum())
    both = ours.success & fooled
    sizes = distance(some.images, theirs, "l2")[both]
    assert float(ours.distances[both].mean()) < float(sizes.mean())


def test_agrees_with_cleverhans(digits: Digits) -> None:
    peer = pytest.importorskip("cleverhans.torch.attacks.carlini_wagner_l2", exc_type=ImportError)
    grey = inner(digits, 20)
    model, images, labels = grey.model, grey.images, grey.labels
    theirs = peer.carlini_wagner_l2(
        model, images, 10, y=labels, lr=0.01, binary_search_steps=4, max_iterations=100
    )
    attack = CarliniWagner(searches=4, steps=100, initial=0.01, stop_early=False)
    agree(model, images, labels, attack(model, images, labels).images, theirs, "l2")


def test_art_finds_nothing_nearer(digits: Digits) -> None:
    grey = inner(digits, 6)
    model, images, labels = grey.model, grey.images, grey.labels
    # In the place of Adam it takes plain gradients and searches along them for the best rate.
    options = {"binary_search_steps": 8, "max_iter": 20, "initial_const": 0.1, "verbose": False}
    theirs = of_art("CarliniL2Method", model, images, labels, **options)
    ours = CarliniWagner(searches=5, steps=150, initial=0.1)(model, images, labels)
    assert share_agrees(ours.success, model(theirs).argmax(1) != labels)
    sizes = distance(images, theirs, "l2")
    assert bool((ours.distances < 1.01 * sizes).all())
    torch.testing.assert_close(ours.distances.median(), sizes.median(), rtol=0.2, atol=0)


class Raised(nn.Module):
    """The same classes with all logits positive: torchattacks takes none to be below zero."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images) + 100
        return logits


def test_agrees_with_torchattacks(digits: Digits) -> None:
    torchattacks = pytest.importorskip("torchattacks", exc_type=ImportError)
    grey = inner(digits, 25)  # its black and white pixels cannot move
    model, images, labels = Raised(digits.model).eval(), grey.images, grey.labels
    theirs = torchattacks.CW(model, c=2, steps=200, lr=0.01)(images, labels)
    attack = CarliniWagner(searches=1, steps=200, initial=2, stop_early=False)
    ours = attack(model, images, labels).images
    agree(model, images, labels, ours, theirs, "l2")


def test_black_and_white_pixels_move() -> None:
    weight = torch.tensor([[-1.0, 1.0, -1.0, 1.0], [1.0, -1.0, 1.0, -1.0]])
    layer = nn.Linear(4, 2, bias=False)
    layer.weight.data = weight
    layer.bias = nn.Parameter(torch.tensor([-3.6, 3.6]))
    model = nn.Sequential(nn.Flatten(), layer).eval()
    images = torch.tensor([0.0, 1.0, 0.0, 1.0]).view(1, 1, 2, 2)
    label = model(images).argmax(1)
    result = CarliniWagner(searches=6, steps=300)(model, images, 1 - label)
    assert float(result.distances) == 0
    layer.bias.data = torch.tensor([-1.6, 1.6])
    label = model(images).argmax(1)
    assert int(label) == 0
    result = CarliniWagner(searches=8, steps=300)(model, images, label)
    # z0 - z1 = 2 (w · x) - 3.2 = 0.8 at first; the gradient's length is 4.
    assert float(result.distances) == pytest.approx(0.2, rel=0.02)
    assert bool((result.images != images).all())


def test_confidence(digits: Digits) -> None:
    model, images, labels = digits.model, digits.images[:20], digits.labels[:20]
    attack = CarliniWagner(confidence=2.0, searches=6, steps=80)
    result = attack(model, images, labels)
    assert bool(result.success.all())
    assert bool((margin(result.logits, labels) > 1.999).all())
    plain = CarliniWagner(searches=5, steps=100)(model, images, labels)
    assert bool((plain.distances < result.distances).all())


def test_targeted(digits: Digits) -> None:
    model, images = digits.model, digits.images[:12]
    wanted = (digits.labels[:12] + 1) % 10
    # Adam moves w by hardly more than its rate in a step: with few steps some are out of reach.
    attack = CarliniWagner(targeted=True, searches=6, steps=200)
    result = attack(model, images, wanted)
    assert bool((result.predictions == wanted).all())


def test_stopping_early_changes_little(digits: Digits) -> None:
    model, images, labels = digits.model, digits.images[:15], digits.labels[:15]
    work, sizes = {}, {}
    for stop in (False, True):
        seen: list[int] = []
        handle = model.register_forward_hook(
            lambda _, inputs, __, seen=seen: seen.append(len(inputs[0]))
        )
        attack = CarliniWagner(searches=5, steps=200, stop_early=stop)
        sizes[stop] = attack(model, images, labels).distances
        handle.remove()
        work[stop] = sum(seen)
    assert work[True] < 0.8 * work[False]
    torch.testing.assert_close(sizes[True], sizes[False], rtol=0.02, atol=0)


def test_adam_is_that_of_torch() -> None:
    ours = torch.ones(3, 1, 2, 2)
    theirs = nn.Parameter(torch.ones(3, 1, 2, 2))
    mine, optimizer = Adam(ours, torch.full((3,), 0.1)), torch.optim.Adam([theirs], lr=0.1)
    for step in range(20):
        gradient = torch.sin(theirs.detach() * torch.arange(1, 13).view(3, 1, 2, 2) + step)
        theirs.grad = gradient
        optimizer.step()
        ours = ours + mine.step(gradient)
        torch.testing.assert_close(ours, theirs.detach())
    mine.keep(torch.tensor([True, False, True]))
    assert mine.step(torch.ones(2, 1, 2, 2)).shape == (2, 1, 2, 2)


def test_search_over_the_weight() -> None:
    needed = torch.tensor([0.0005, 0.7, 300.0, torch.inf])
    weights = Weights(needed, 1e-3, 9)
    for _ in range(9):
        weights.update(weights.now >= needed)
    assert bool((weights.high[:3] >= needed[:3]).all())
    assert float(weights.high[1]) < 1.1 * 0.7
    assert not bool(weights.high[3].isfinite())
    last = Weights(needed, 1e-3, 10)
    for _ in range(9):
        last.update(last.now >= needed)
    assert torch.equal(last.now[:3], last.high[:3])


def test_progress_is_checked_at_every_tenth() -> None:
    progress = Progress(torch.zeros(2), 300)
    for step in range(90):
        going = progress.better(step, torch.tensor([1 / (step + 1), max(0.5, 1 - step / 30)]))
        assert (going is not None) == (step % 30 == 0)
        if going is not None:
            assert going.tolist() == [True, step < 60]
    assert Progress(torch.zeros(2), 40).every == 20


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_there_and_back(pixels: list[float]) -> None:
    images = torch.tensor([0.0, 1.0, *pixels])
    w = to_tanh(images).requires_grad_(True)
    back = from_tanh(w)
    torch.testing.assert_close(back.detach(), images, rtol=0, atol=1e-6)
    assert bool(((back >= 0) & (back <= 1)).all())
    (slope,) = torch.autograd.grad(back.sum(), w)
    assert float(slope.min()) > 0.1


def test_hinge() -> None:
    logits, labels = torch.tensor([[3.0, 1, 0], [0, 2, 2.5]]), torch.tensor([0, 1])
    torch.testing.assert_close(hinge(logits, labels, False, 0.25), torch.tensor([2.25, 0.0]))
    torch.testing.assert_close(hinge(logits, labels, True, 0.25), torch.tensor([0.0, 0.75]))


@pytest.mark.parametrize(
    "options",
    [{"steps": 0}, {"searches": 0}, {"learning_rate": 0}, {"confidence": -1}, {"initial": 0}],
)
def test_refuses_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        CarliniWagner(**options)  # type: ignore[arg-type]


def test_what_is_not_found_stays(digits: Digits) -> None:
    attack = CarliniWagner(searches=1, steps=20)
    result = attack(digits.model, digits.images, digits.labels)
    lost = ~result.success
    assert bool(lost.any())
    assert torch.equal(result.images[lost], digits.images[lost])
