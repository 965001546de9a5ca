"""The elastic-net attack against known nearest points and other implementations."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from jernih.attacks import EAD, CarliniWagner, distance
from jernih.attacks.ead import Rule
from jernih.attacks.losses import margin
from jernih.validate import InputError
from tests.attacks.gradient_peers import of_art
from tests.attacks.known import Digits, agree, inner, linear_model, middling, nearest_on_linear


def counted(model: nn.Module, attack: EAD, images: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """What the attack makes, and how often the model was asked about an image."""
    seen: list[int] = []
    handle = model.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    made = attack(model, images, labels).images
    handle.remove()
    return made, sum(seen)


def elastic(images: Tensor, made: Tensor) -> Tensor:
    """What EN makes small, with the β of these tests."""
    return 0.01 * distance(images, made, "l1") + distance(images, made, "l2").square()


@pytest.mark.parametrize("classes", [2, 4])
def test_linear_model_in_closed_form(classes: int) -> None:
    model, images = linear_model(classes), middling(30)
    labels = model(images).argmax(1)
    _, sizes = nearest_on_linear(model, images, labels, "l1")
    reach = sizes < 0.35  # it is one pixel that changes, and may not leave the range
    images, labels, sizes = images[reach], labels[reach], sizes[reach]
    assert len(images) > 5
    attack = EAD(rule="L1", beta=0.02, searches=8, steps=200, learning_rate=0.005)
    result = attack(model, images, labels)
    assert bool(result.success.all())
    assert bool((result.distances >= sizes - 1e-5).all())
    torch.testing.assert_close(result.distances, sizes, rtol=0.05, atol=0.005)
    assert float((result.images != images).flatten(1).sum(1).float().mean()) < 3


@pytest.mark.parametrize("rule", ["EN", "L1"])
@pytest.mark.parametrize("targeted", [False, True])
def test_agrees_with_foolbox(digits: Digits, rule: Rule, targeted: bool) -> None:
    foolbox = pytest.importorskip("foolbox", exc_type=ImportError)
    grey = inner(digits, 25)
    model, images, labels = grey.model, grey.images, grey.labels
    goal = "TargetedMisclassification" if targeted else "Misclassification"
    labels = (labels + 1) % 10 if targeted else labels
    peer = foolbox.attacks.EADAttack(
        binary_search_steps=7, steps=60, decision_rule=rule, abort_early=False
    )
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    theirs = peer(wrapped, images, getattr(foolbox.criteria, goal)(labels), epsilons=None)[0]
    attack = EAD(targeted=targeted, rule=rule, beta=0.01, searches=7, steps=60, stop_early=False)
    ours = attack(model, images, labels).images
    agree(model, images, labels, ours, theirs, "l1", targeted)
    agree(model, images, labels, ours, theirs, "l2", targeted)


def test_agrees_with_foolbox_on_black_and_white(digits: Digits) -> None:
    foolbox = pytest.importorskip("foolbox", exc_type=ImportError)
    model, images, labels = digits.model, digits.images[:25], digits.labels[:25]
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    peer = foolbox.attacks.EADAttack(binary_search_steps=7, steps=60, abort_early=False)
    theirs = peer(wrapped, images, labels, epsilons=None)[0]
    attack = EAD(beta=0.01, searches=7, steps=60)
    agree(model, images, labels, attack(model, images, labels).images, theirs, "l1")


@pytest.mark.parametrize("rule", ["EN", "L1"])
def test_agrees_with_art(digits: Digits, rule: Rule) -> None:
    grey = inner(digits, 8)
    model, images, labels = grey.model, grey.images, grey.labels
    options = {"binary_search_steps": 4, "max_iter": 40, "initial_const": 0.01, "verbose": False}
    theirs = of_art(
        "ElasticNet",
        model,
        images,
        labels,
        decision_rule=rule,
        beta=0.01,
        learning_rate=0.01,
        **options,
    )
    attack = EAD(rule=rule, beta=0.01, searches=4, steps=40, initial=0.01, stop_early=False)
    agree(model, images, labels, attack(model, images, labels).images, theirs, "l1")


def test_is_nearer_in_l1_and_farther_in_l2_than_carlini_and_wagner(digits: Digits) -> None:
    model, images, labels = digits.model, digits.images[:15], digits.labels[:15]
    sparse = EAD(rule="L1", beta=0.01, searches=6, steps=100)(model, images, labels)
    plain = CarliniWagner(searches=6, steps=100)(model, images, labels)
    assert bool((sparse.success & plain.success).all())
    absolute, square = (distance(images, plain.images, norm) for norm in ("l1", "l2"))
    assert float(sparse.distances.mean()) < 0.7 * float(absolute.mean())
    assert float(distance(images, sparse.images, "l2").mean()) > float(square.mean())
    changed = [(r.images != images).flatten(1).sum(1).float().mean() for r in (sparse, plain)]
    assert float(changed[0]) < 0.5 * float(changed[1])


@pytest.mark.parametrize("rule", ["EN", "L1"])
def test_stopping_early_changes_little(digits: Digits, rule: Rule) -> None:
    model, images, labels = digits.model, digits.images[:12], digits.labels[:12]
    sizes, work = [], []
    for stop in (False, True):
        attack = EAD(rule=rule, beta=0.01, searches=6, steps=200, stop_early=stop)
        made, asked = counted(model, attack, images, labels)
        sizes.append(distance(images, made, "l1") if rule == "L1" else elastic(images, made))
        work.append(asked)
    torch.testing.assert_close(sizes[1], sizes[0], rtol=0.02, atol=5e-4)
    assert work[1] < (0.7 if rule == "EN" else 0.95) * work[0]


def test_what_cannot_move_leaves(digits: Digits) -> None:
    model, images, labels = digits.model, digits.images[:5], digits.labels[:5]
    attack = EAD(initial=1e-9, searches=1, steps=500, stop_early=False)
    made, asked = counted(model, attack, images, labels)
    assert torch.equal(made, images)
    assert asked == 3 * len(images)  # the clean labels, one gradient, and the check at the end


def test_changes_shrink_to_zero_and_stay_in_range() -> None:
    attack = EAD(beta=0.1)
    images = torch.tensor([0.5, 0.5, 0.5, 0.5, 0.95, 0.0]).view(1, 1, 2, 3)
    moved = torch.tensor([0.7, 0.3, 0.58, 0.42, 1.4, -0.3]).view(1, 1, 2, 3)
    expected = torch.tensor([0.6, 0.4, 0.5, 0.5, 1.0, 0.0]).view(1, 1, 2, 3)
    torch.testing.assert_close(attack._shrink(moved, images), expected)


def test_rules_choose_differently(digits: Digits) -> None:
    model, images, labels = digits.model, digits.images[:12], digits.labels[:12]
    by_en, by_l1 = (
        EAD(rule=rule, beta=0.01, searches=6, steps=80, stop_early=False)(model, images, labels)
        for rule in get_args(Rule)
    )
    assert bool((by_l1.distances <= by_en.distances + 1e-5).all())
    sizes = elastic(images, by_en.images)
    assert bool((sizes <= elastic(images, by_l1.images) + 1e-5).all())


def test_confidence(digits: Digits) -> None:
    model, images, labels = digits.model, digits.images[:10], digits.labels[:10]
    result = EAD(confidence=2.0, searches=6, steps=80)(model, images, labels)
    assert bool(result.success.all())
    assert bool((margin(result.logits, labels) > 1.999).all())


def test_two_classes(two_digits: Digits) -> None:
    model, images, labels = two_digits.model, two_digits.images[:15], two_digits.labels[:15]
    assert bool(EAD(searches=6, steps=80)(model, images, labels).success.all())


@pytest.mark.parametrize(
    "options",
    [
        {"rule": "L2"},
        {"beta": 0},
        {"steps": 0},
        {"searches": 0},
        {"learning_rate": 0},
        {"confidence": -1},
        {"initial": 0},
    ],
)
def test_refuses_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        EAD(**options)  # type: ignore[arg-type]
