"""FAB against the nearest points of linear models, DeepFool and another implementation."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from jernih.attacks import FAB, distance
from jernih.types import Norm
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
    eps = distance(images, theirs, norm).median()
    mine, other = (distance(images, made, norm) <= eps for made in (ours, theirs))
    assert float((mine != other).float().mean()) <= 0.1
