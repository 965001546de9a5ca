"""FAB-T against another implementation and FAB."""

from __future__ import annotations

import warnings

import pytest
import torch

from jernih.attacks import FAB, FABT, distance
from jernih.types import Norm
from jernih.validate import InputError
from tests.attacks.known import Digits, agree, linear_model, middling, nearest_on_linear


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_linear_model_in_closed_form(norm: Norm) -> None:
    model, images = linear_model(5), middling()
    labels = model(images).argmax(1)
    points, sizes = nearest_on_linear(model, images, labels, norm)
    within = ((points >= 0) & (points <= 1)).flatten(1).all(1)
    result = FABT(norm=norm, steps=10)(model, images, labels)
    assert bool(result.success.all())
    torch.testing.assert_close(result.distances[within], sizes[within], rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_agrees_with_torchattacks(digits: Digits, norm: Norm) -> None:
    torchattacks = pytest.importorskip("torchattacks", exc_type=ImportError)
    model, images, labels = digits.model, digits.images, digits.labels
    name = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    peer = torchattacks.FAB(model, norm=name, steps=20, multi_targeted=True)
    theirs = images.clone()
    nearest = torch.full((60,), torch.inf)
    for peer.target_class in (2, 3, 4):
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")
            made = peer.attack_single_run_targeted(images, labels).detach()
        sizes = distance(images, made, norm)
        nearer = (model(made).argmax(1) != labels) & (sizes < nearest)
        theirs[nearer], nearest[nearer] = made[nearer], sizes[nearer]
    result = FABT(norm=norm, targets=3, steps=20, final_steps=0)(model, images, labels)
    agree(model, images, labels, result.images, theirs, norm)
    alike = (result.distances - nearest).abs() < 0.01 * nearest
    assert float(alike.float().mean()) > 0.9


def test_more_targets_come_closer(digits: Digits) -> None:
    model, images, labels = digits.model, digits.images, digits.labels
    one, four = (FABT(norm="l2", targets=n, steps=10)(model, images, labels) for n in (1, 4))
    assert float(four.distances.mean()) < float(one.distances.mean())
    every = FAB(norm="l2", steps=10)(model, images, labels)
    torch.testing.assert_close(four.distances.median(), every.distances.median(), rtol=0.05, atol=0)


def test_two_classes_are_fab(two_digits: Digits) -> None:
    model, images, labels = two_digits.model, two_digits.images, two_digits.labels
    ours, fab = (attack(steps=10)(model, images, labels).images for attack in (FABT, FAB))
    assert torch.equal(ours, fab)


def test_images_leave_later_rounds(digits: Digits) -> None:
    model, images, labels = digits.model, digits.images, digits.labels
    seen: list[int] = []
    handle = model.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    early = FABT(0.12, targets=4, steps=10, stop_early=True)(model, images, labels)
    few = sum(seen)
    full = FABT(0.12, targets=4, steps=10)(model, images, labels)
    handle.remove()
    assert torch.equal(early.success, full.success)
    assert few < 0.6 * (sum(seen) - few)


def test_refuses_bad_options() -> None:
    with pytest.raises(InputError, match="targets"):
        FABT(targets=0)
