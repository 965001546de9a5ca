"""The alignment of what was taken away with the classifier's gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jernih.adaptive import evade
from jernih.attacks import PGD
from jernih.classifiers import Classifier
from jernih.defended import Defended
from jernih.detectors import GradientAlignment
from jernih.purifiers import ConvAutoencoder, Identity
from jernih.randomness import generator, seeded

SIDE = 12


class Curved(nn.Module):
    """Two logits whose gradient is known and differs from image to image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.randn(3, SIDE, SIDE, generator=generator("curved"), dtype=torch.float64)
        )

    def forward(self, images: Tensor) -> Tensor:
        z = (images.square() * self.weight).sum((1, 2, 3))
        return torch.stack([z, -z], 1)


def curved() -> Classifier:
    found = Classifier(Curved(), ["a", "b"], mean=(0.0,) * 3, std=(1.0,) * 3).double().eval()
    return found.requires_grad_(False)


@pytest.fixture
def restored() -> Tensor:
    shape = (5, 3, SIDE, SIDE)
    return 0.3 + 0.4 * torch.rand(shape, generator=generator("restored"), dtype=torch.float64)


def noise(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=generator("taken"), dtype=like.dtype)


def test_against_numpy(restored: Tensor) -> None:
    classifier, removed = curved(), 0.01 * noise(restored)
    found = GradientAlignment(classifier, Identity()).score(restored + removed, restored)
    weight = classifier.network.get_parameter("weight").numpy()
    for k in range(len(restored)):
        image = restored[k].numpy()
        sign = 1 if (image**2 * weight).sum() > 0 else -1
        a, b = (
            np.tanh(v / np.abs(v).mean()).ravel()
            for v in (removed[k].numpy(), sign * 2 * (2 * image * weight))
        )
        expected = abs(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b))
        np.testing.assert_allclose(float(found[k]), expected, rtol=1e-6)


def test_steps_along_the_gradient_stand_out_of_noise_of_any_size(restored: Tensor) -> None:
    detector = GradientAlignment(curved(), Identity())
    weight = detector.classifier.network.get_parameter("weight")
    for size in (1e-4, 0.01, 0.1):
        for step in (weight.sign(), -weight.sign()):
            attacked = detector.score(restored + size * step, restored)
            assert bool((attacked > 0.8).all())
        assert bool((detector.score(restored + size * noise(restored), restored) < 0.2).all())
    assert bool((detector.score(restored, restored) == 0).all())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_needs_nobody_to_ask_for_gradients(
    mode: type[torch.no_grad], classifier: Classifier, images: Tensor
) -> None:
    with seeded(0):
        detector = GradientAlignment(classifier, ConvAutoencoder(widths=(4, 8))).eval()
    expected = detector(images)
    with mode():
        again = detector(images)
        inspected = Defended(classifier, detector.purifier, detector).eval().inspect(images)
    assert not again.requires_grad
    torch.testing.assert_close(again, expected.detach())
    assert inspected.scores is not None
    torch.testing.assert_close(inspected.scores, again)
    assert all(parameter.grad is None for parameter in detector.parameters())


def test_an_attacker_can_climb_it(restored: Tensor) -> None:
    """The derivative of the score, by autograd, is that by differences."""
    detector = GradientAlignment(curved(), Identity())
    removed = 0.01 * noise(restored)
    there = (restored + removed).requires_grad_()
    where = restored.clone().requires_grad_()
    slopes = torch.autograd.grad(detector.score(there, where).sum(), (there, where))
    for k, slope in enumerate(slopes):
        way = slope / slope.norm() + noise(slope) / slope.numel()
        both = [restored + removed, restored]
        step = 1e-6
        ahead, behind = list(both), list(both)
        ahead[k], behind[k] = both[k] + step * way, both[k] - step * way
        rise = (detector.score(*ahead) - detector.score(*behind)).sum() / (2 * step)
        torch.testing.assert_close((slope * way).sum(), rise, rtol=1e-5, atol=0)


def test_attacks_that_evade_it_pass_through_a_frozen_model(
    classifier: Classifier, images: Tensor, labels: Tensor
) -> None:
    with seeded(0):
        purifier = ConvAutoencoder(widths=(4, 8))
    detector = GradientAlignment(classifier, purifier).eval()
    detector.calibrate(torch.linspace(0, 0.02, 100))
    model = Defended(classifier, purifier, detector).eval().frozen()
    assert model.detector is not None
    told = evade(PGD("8/255", steps=3, targeted=True), model, model.detector, None, images, labels)
    assert told.success.shape == labels.shape
