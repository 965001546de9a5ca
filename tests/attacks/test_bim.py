"""BIM against other libraries and a closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jernih.attacks import BIM, FGSM, PGD
from jernih.classifiers import Classifier
from jernih.randomness import generator
from jernih.validate import InputError
from tests.attacks.gradient_peers import of_art, of_foolbox, of_torchattacks
from tests.attacks.test_pgd import linear_model
from tests.conftest import tiny_classifier


def test_linear_model_in_closed_form() -> None:
    model, weight = linear_model()
    images, labels = torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])
    expected = torch.stack([0.5 + 0.1 * weight.sign(), 0.5 - 0.1 * weight.sign()])
    torch.testing.assert_close(BIM(0.1)(model, images, labels).images, expected)
    towards = BIM(0.1, targeted=True)(model, images, labels)
    torch.testing.assert_close(towards.images, expected.flip(0))
    # Steps too small to reach the bound add up.
    short = BIM(0.1, steps=3, step_size=0.2)(model, images, labels)
    torch.testing.assert_close(short.images, images + 0.6 * (expected - images))


def test_against_peers(classifier: Classifier, images: Tensor, labels: Tensor) -> None:
    images[0] = images[0].round()
    eps, alpha, steps = 0.03, 0.006, 10
    found = BIM(eps, steps=steps, step_size=alpha / eps)(classifier, images, labels).images
    arguments = (classifier, images, labels)
    for made in (
        of_foolbox(
            "LinfBasicIterativeAttack", *arguments, eps=eps, abs_stepsize=alpha, steps=steps
        ),
        of_torchattacks("BIM", *arguments, eps=eps, alpha=alpha, steps=steps),
        of_art(
            "BasicIterativeMethod", *arguments, eps=eps, eps_step=alpha, max_iter=steps,
            verbose=False,
        ),
    ):  # fmt: skip
        torch.testing.assert_close(found, made, atol=1e-6, rtol=0)


def test_what_it_is_made_of(classifier: Classifier, images: Tensor, labels: Tensor) -> None:
    one = BIM(0.02, steps=1, step_size=1)(classifier, images, labels).images
    torch.testing.assert_close(one, FGSM(0.02)(classifier, images, labels).images)
    pgd = PGD(0.02, steps=10, random_start=False, stop_early=False)(classifier, images, labels)
    found = BIM(0.02)(classifier, images, labels, generator=generator(1))
    assert torch.equal(found.images, pgd.images)
    assert torch.equal(found.images, BIM(0.02)(classifier, images, labels).images)


def test_stopping_early(images: Tensor) -> None:
    model = tiny_classifier(seed=2)
    labels = model(images).argmax(1)
    whole = BIM(0.1)(model, images, labels)
    stopped = BIM(0.1, stop_early=True)(model, images, labels)
    assert bool(whole.success.any())
    assert bool((stopped.success | ~whole.success).all())
    assert bool((stopped.distances[stopped.success] <= whole.distances[stopped.success]).all())


def test_its_options_are_its_own() -> None:
    assert BIM().describe() == {
        "name": "bim", "eps": "8/255", "targeted": False, "steps": 10, "step_size": None,
        "stop_early": False,
    }  # fmt: skip
    for options in ({"steps": 0}, {"step_size": 0.0}, {"step_size": 3}):
        with pytest.raises(InputError, match=next(iter(options))):
            BIM(**options)
