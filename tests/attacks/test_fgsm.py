"""FGSM against what is known of it."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from jernih.attacks import FGSM
from jernih.classifiers import Classifier
from tests.attacks.gradient_peers import of_art, of_foolbox, of_torchattacks


def linear_model() -> tuple[nn.Module, Tensor]:
    """Two classes apart by w · x: the gradient's sign is that of w everywhere."""
    weight = torch.linspace(-1, 1, 12).add(0.05)
    layer = nn.Linear(12, 2, bias=False)
    layer.weight.data = torch.stack([torch.zeros(12), weight])
    return nn.Sequential(nn.Flatten(), layer).eval(), weight.view(3, 2, 2)


def test_linear_model_in_closed_form() -> None:
    model, weight = linear_model()
    images = torch.full((2, 3, 2, 2), 0.5)
    result = FGSM(eps=0.1)(model, images, torch.tensor([0, 1]))
    expected = torch.stack([0.5 + 0.1 * weight.sign(), 0.5 - 0.1 * weight.sign()])
    torch.testing.assert_close(result.images, expected)


def test_targeted_goes_the_other_way() -> None:
    model, weight = linear_model()
    images = torch.full((1, 3, 2, 2), 0.5)
    towards = FGSM(eps=0.1, targeted=True)(model, images, torch.tensor([1]))
    torch.testing.assert_close(towards.images[0], 0.5 + 0.1 * weight.sign())
    assert bool(towards.success[0]) == (int(towards.predictions[0]) == 1)


def test_sweep_takes_one_gradient(classifier: Classifier, images: Tensor, labels: Tensor) -> None:
    calls = []
    handle = classifier.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    swept = FGSM().sweep(classifier, images, labels, [0.01, "8/255", 0.1])
    handle.remove()
    assert calls.count(True) == 1
    for result, eps in zip(swept, [0.01, 8 / 255, 0.1], strict=True):
        alone = FGSM(eps=eps)(classifier, images, labels)
        assert torch.equal(result.images, alone.images)
        assert result.eps == eps


def test_prepared_model_gives_the_same_signs(
    classifier: Classifier, images: Tensor, labels: Tensor
) -> None:
    plain = FGSM(eps=0.03)(classifier, images, labels).images
    ready = FGSM(eps=0.03)(classifier.frozen(), images, labels).images
    assert float(((plain - ready).abs() > 1e-4).float().mean()) < 0.001


@settings(max_examples=25, deadline=None)
@given(eps=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_within_the_ball_for_any_bound(eps: float, seed: int) -> None:
    model, _ = linear_model()
    images = torch.rand(3, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    result = FGSM(eps=eps)(model, images, torch.tensor([0, 1, 0]))
    assert float((result.images - images).abs().max()) <= eps + 1e-6
    assert 0 <= float(result.images.min()) <= float(result.images.max()) <= 1


def test_loss_rises(classifier: Classifier, images: Tensor, labels: Tensor) -> None:
    attacked = FGSM(eps=0.002)(classifier, images, labels).images
    loss = nn.functional.cross_entropy
    before = loss(classifier(images), labels, reduction="none")
    after = loss(classifier(attacked), labels, reduction="none")
    assert bool((after > before).all())


def test_against_peers(classifier: Classifier, images: Tensor, labels: Tensor) -> None:
    found = FGSM(0.03)(classifier, images, labels).images
    arguments = (classifier, images, labels)
    for made in (
        of_foolbox("LinfFastGradientAttack", *arguments, eps=0.03),
        of_torchattacks("FGSM", *arguments, eps=0.03),
        of_art("FastGradientMethod", *arguments, eps=0.03),
    ):
        torch.testing.assert_close(found, made, atol=1e-6, rtol=0)
