"""Carlini & Wagner's L∞ attack against known nearest points and other attacks."""

from __future__ import annotations

import pytest
import torch

from jernih.attacks import PGD, CarliniWagnerLinf, distance
from jernih.attacks.losses import margin
from jernih.validate import InputError
from tests.attacks.gradient_peers import of_art
from tests.attacks.known import Digits, agree, inner, linear_model, middling, nearest_on_linear


@pytest.mark.parametrize("classes", [2, 4])
def test_linear_model_in_closed_form(classes: int) -> None:
    model, images = linear_model(classes), middling(6)
    labels = model(images).argmax(1)
    points, sizes = nearest_on_linear(model, images, labels, "linf")
    result = CarliniWagnerLinf(steps=100)(model, images, labels)
    assert bool(result.success.all())
    assert bool((result.distances >= sizes - 1e-6).all())
    torch.testing.assert_close(result.distances, sizes, rtol=0.03, atol=2e-4)
    # At the least size there is but one point, a corner of the ball.
    assert float((result.images - points).abs().mean()) < 0.05 * float(sizes.mean())


def test_agrees_with_art_on_a_linear_model() -> None:
    model, images = linear_model(), middling(5)
    labels = model(images).argmax(1)
    options = {"initial_const": 0.1, "const_factor": 10.0, "max_iter": 50, "verbose": False}
    # The limit has to be a small number of its steps of Adam, or it stops far from the boundary.
    options |= {"learning_rate": 0.002, "decrease_factor": 0.95}
    theirs = of_art("CarliniLInfMethod", model, images, labels, **options)
    ours = CarliniWagnerLinf(steps=50, initial=0.1)(model, images, labels)
    agree(model, images, labels, ours.images, theirs, "linf")


def test_art_finds_nothing_nearer(digits: Digits) -> None:
    grey = inner(digits, 4)
    model, images, labels = grey.model, grey.images, grey.labels
    options = {"initial_const": 0.1, "const_factor": 10.0, "max_iter": 50, "verbose": False}
    theirs = of_art("CarliniLInfMethod", model, images, labels, **options)
    ours = CarliniWagnerLinf(steps=50, initial=0.1)(model, images, labels)
    assert bool(ours.success.all())
    assert bool((ours.distances < distance(images, theirs, "linf")).all())


def test_agrees_with_foolboxs_deepfool(digits: Digits) -> None:
    foolbox = pytest.importorskip("foolbox", exc_type=ImportError)
    grey = inner(digits, 30)
    model, images, labels = grey.model, grey.images, grey.labels
    theirs, _, _ = foolbox.attacks.LinfDeepFoolAttack()(
        foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), images, labels, epsilons=None
    )
    ours = CarliniWagnerLinf(steps=60)(model, images, labels).images
    agree(model, images, labels, ours, theirs, "linf")


def test_pgd_gets_to_the_same_class_from_hardly_nearer(digits: Digits) -> None:
    model, images, labels = digits.model, digits.images[:5], digits.labels[:5]
    result = CarliniWagnerLinf(steps=100)(model, images, labels)
    assert bool(result.success.all())
    for image, reached, size in zip(images, result.predictions, result.distances, strict=True):
        pgd = PGD(0.95 * float(size), steps=50, random_start=False, targeted=True)
        assert not bool(pgd(model, image[None], reached[None]).success)


def test_tiny_distances_are_found() -> None:
    model, images = linear_model(), middling(6)
    labels = model(images).argmax(1)
    points, _ = nearest_on_linear(model, images, labels, "linf")
    before = images + 0.9 * (points - images)
    _, sizes = nearest_on_linear(model, before, labels, "linf")
    assert float(sizes.max()) < 1 / 256
    result = CarliniWagnerLinf(steps=60)(model, before, labels)
    assert bool(result.success.all())
    torch.testing.assert_close(result.distances, sizes, rtol=0.05, atol=2e-4)


def test_confidence(digits: Digits) -> None:
    model, images, labels = digits.model, digits.images[:6], digits.labels[:6]
    result = CarliniWagnerLinf(confidence=1.0, steps=150, shrink=0.9)(model, images, labels)
    assert bool(result.success.all())
    assert bool((margin(result.logits, labels) > 0.999).all())


def test_targeted(digits: Digits) -> None:
    model, images = digits.model, digits.images[:6]
    wanted = (digits.labels[:6] + 1) % 10
    result = CarliniWagnerLinf(targeted=True, steps=150, shrink=0.9)(model, images, wanted)
    assert bool((result.predictions == wanted).all())


def test_coarser_shrinking_is_not_nearer(digits: Digits) -> None:
    model, images, labels = digits.model, digits.images[:3], digits.labels[:3]
    fine = CarliniWagnerLinf(steps=100)(model, images, labels)
    coarse = CarliniWagnerLinf(steps=100, shrink=0.8)(model, images, labels)
    assert bool((fine.success & coarse.success).all())
    assert float(fine.distances.mean()) < float(coarse.distances.mean())


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"learning_rate": 0},
        {"confidence": -1},
        {"initial": 0},
        {"largest": 0},
        {"shrink": 1},
        {"smallest": 0},
    ],
)
def test_refuses_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        CarliniWagnerLinf(**options)  # type: ignore[arg-type]
