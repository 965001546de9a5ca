"""Universal: one perturbation, which also fools images that it was not learned on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jernih.attacks import Universal, distance
from jernih.randomness import generator
from jernih.types import Norm
from jernih.validate import InputError
from tests.attacks.gradient_peers import of_art
from tests.attacks.known import Digits


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.2), ("l2", 1.5)])
def test_fools_new_images_more_than_noise_does(digits: Digits, norm: Norm, eps: float) -> None:
    attack = Universal(eps, norm=norm)
    known, new = slice(0, 40), slice(40, None)
    batches = [(digits.images[known], digits.labels[known])] * 30
    delta = attack.learn(digits.model, batches)
    assert delta.shape == (1, *digits.images.shape[1:])
    zero = torch.zeros_like(delta)
    assert float(distance(zero, delta, norm)[0]) == pytest.approx(eps, rel=1e-4)
    images, labels = digits.images[new], digits.labels[new]
    fooled = digits.model(attack.apply(images, delta)).argmax(1) != labels
    noise = torch.randn(delta.shape, generator=generator("universal"))
    noise = eps * (noise.sign() if norm == "linf" else noise / noise.norm())
    by_noise = digits.model(attack.apply(images, noise)).argmax(1) != labels
    assert float(fooled.float().mean()) > float(by_noise.float().mean()) + 0.2


def test_beside_art(digits: Digits) -> None:
    images, labels = digits.images[:15], digits.labels[:15]
    ours = Universal(0.2)(digits.model, images, labels)
    np.random.seed(0)  # noqa: NPY002 - ART draws from the global numbers
    made = of_art(
        "UniversalPerturbation",
        digits.model,
        images,
        labels,
        attacker="deepfool",
        eps=0.2,
        max_iter=2,
        norm=np.inf,
        verbose=False,
    )
    assert float(distance(images, made, "linf").max()) <= 0.2 + 1e-5
    theirs = float((digits.model(made).argmax(1) != labels).float().mean())
    assert float(ours.success.float().mean()) >= theirs


def test_targeted_reaches_one_class(digits: Digits) -> None:
    wanted = torch.full((30,), 3)
    result = Universal(0.4, targeted=True)(digits.model, digits.images[:30], wanted)
    assert float(result.success.float().mean()) > 0.5


def test_refuses(digits: Digits) -> None:
    with pytest.raises(InputError, match="batches"):
        Universal().learn(digits.model, [])
    with pytest.raises(InputError, match="norm"):
        Universal(norm="l1")
