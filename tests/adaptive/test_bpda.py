from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from jernih.adaptive import BPDA
from jernih.attacks import FGSM, PGD
from jernih.classifiers import Classifier
from jernih.defended import Defended
from jernih.purifiers import BitDepth
from jernih.purifiers.base import straight_through
from jernih.randomness import generator
from jernih.validate import InputError
from tests.attacks.known import linear_model, middling


def rounded(images: Tensor) -> Tensor:
    return (images * 20).round() / 20


def slope_of(model: nn.Module, images: Tensor) -> Tensor:
    leaf = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)
    return gradient


def test_forwards_it_is_the_step(images: Tensor) -> None:
    step = BPDA(rounded, lambda x: 3 * x)
    assert torch.equal(step(images), rounded(images))
    assert torch.equal(step(images.clone().requires_grad_(True)).detach(), rounded(images))
    with torch.no_grad():
        assert torch.equal(step(images), rounded(images))


def test_the_identity_is_what_purifiers_do_themselves(
    images: Tensor, classifier: Classifier
) -> None:
    ours = nn.Sequential(BPDA(rounded), classifier)

    class Itself(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return straight_through(rounded, x)

    theirs = nn.Sequential(Itself(), classifier)
    assert torch.equal(slope_of(ours, images), slope_of(theirs, images))


def test_backwards_it_is_the_surrogate_at_the_images(images: Tensor) -> None:
    leaf = images.clone().requires_grad_(True)
    weight = torch.rand(images.shape, generator=generator("weight"))
    output = BPDA(rounded, lambda x: x**2)(leaf)
    (gradient,) = torch.autograd.grad((weight * output).sum(), leaf)
    torch.testing.assert_close(gradient, 2 * images * weight)


def test_a_trained_surrogate_has_its_own_parameters_in_the_model() -> None:
    step = BPDA(rounded, nn.Conv2d(3, 3, 1))
    assert len(list(step.parameters())) == 2


def test_a_step_that_does_nothing_leaves_the_gradient(
    images: Tensor, classifier: Classifier
) -> None:
    model = nn.Sequential(BPDA(lambda x: x), classifier)
    assert torch.equal(slope_of(model, images), slope_of(classifier, images))


def test_a_step_may_change_the_shape_as_its_surrogate_does(images: Tensor) -> None:
    step = BPDA(lambda x: rounded(x)[..., ::2, ::2], lambda x: x[..., ::2, ::2])
    assert step(images).shape == (6, 3, 16, 16)
    with pytest.raises(InputError, match="surrogate"):
        BPDA(lambda x: x[..., ::2, ::2])(images)


def test_opens_a_quantising_defence_to_attack() -> None:
    classifier, images = linear_model(), middling()
    labels = classifier(images).argmax(1)

    class Quantised(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return rounded(x)

    closed = nn.Sequential(Quantised(), classifier).eval()
    opened = nn.Sequential(BPDA(rounded), classifier).eval()
    labels = closed(images).argmax(1)
    attack = PGD(0.15, steps=20, random_start=False)
    assert int(attack(closed, images, labels).success.sum()) == 0
    result = attack(opened, images, labels)
    assert int(result.success.sum()) > 12
    assert torch.equal(closed(result.images).argmax(1) != labels, result.success)


def test_a_second_attack_on_a_purifier(classifier: Classifier, images: Tensor) -> None:
    """Bit depth passes gradients as the identity already, so both attacks are one."""
    purifier, labels = BitDepth(), torch.arange(6) % 3
    through = FGSM(0.05)(Defended(classifier, purifier).eval(), images, labels)
    around = FGSM(0.05)(nn.Sequential(BPDA(purifier), classifier).eval(), images, labels)
    assert torch.equal(through.images, around.images)
