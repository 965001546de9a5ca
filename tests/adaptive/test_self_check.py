from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from jernih.adaptive import BPDA, Expectation, GradientCheck, check_gradients
from jernih.adaptive.signs import differing, gradient_of, in_training, out_of_range
from jernih.classifiers import Classifier
from jernih.defended import Defended
from jernih.purifiers import JPEG, BitDepth, ConvAutoencoder
from jernih.randomness import generator, seeded
from jernih.validate import InputError
from tests.adaptive.test_eot import Masked, Noisy
from tests.attacks.known import Digits, linear_model, middling
from tests.conftest import tiny_classifier


class Step(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


def quantised(images: Tensor) -> Tensor:
    return (images * 7).round() / 7


def check(given: Digits, *layers: nn.Module) -> GradientCheck:
    model = nn.Sequential(*layers).eval()
    return check_gradients(model, given.images[:16], given.labels[:16])


def test_ordinary_networks_pass(digits: Digits, two_digits: Digits, images: Tensor) -> None:
    found = [check(each, each.model) for each in (digits, two_digits)]
    for outputs in (1, 2, 3):
        model = tiny_classifier(outputs)
        found.append(check_gradients(model, images, model(images).argmax(1)))
    for each in found:
        assert each.faults == ()
        assert each.cosine is not None
        assert each.cosine > 0.98
        assert each.relative_error is not None
        assert each.relative_error < 0.05
        assert (each.uphill, each.zero, each.random) == (1, 0, False)
        assert each.verdict.startswith("The gradient tells what the loss does")


def test_slopes_of_a_linear_model_are_known() -> None:
    """With two classes the slope of the loss is that of the logits times 1 − p."""
    linear, images = linear_model(2), middling(4)
    labels = torch.tensor([0, 1, 0, 1])
    layer = next(m for m in linear.modules() if isinstance(m, nn.Linear))
    gradient, logits = gradient_of(linear, images, labels)
    missing = 1 - logits.softmax(1).gather(1, labels[:, None])
    ways = layer.weight[1 - labels] - layer.weight[labels]
    torch.testing.assert_close(gradient.flatten(1), missing * ways)
    found = check_gradients(linear, images, labels)
    assert found.cosine == pytest.approx(1, abs=1e-4)
    assert found.relative_error == pytest.approx(0, abs=1e-3)


def test_a_quantising_step_without_a_surrogate_is_found(digits: Digits) -> None:
    found = check(digits, Step(quantised), digits.model)
    assert found.zero == 1
    assert found.cosine is found.uphill is None
    assert "exactly zero on 100%" in found.verdict
    assert "BPDA" in found.verdict
    assert "exactly zero" in check(digits, Step(lambda x: x.detach()), digits.model).verdict


def test_with_a_surrogate_it_is_a_stand_in(digits: Digits) -> None:
    found = check(digits, BPDA(quantised), digits.model)
    assert found.faults == ()
    assert found.uphill == 1
    assert "stand-in" in found.verdict


@pytest.mark.parametrize("random", [Masked, Noisy])
def test_a_random_defence_is_found_unless_it_is_averaged(
    random: Callable[[nn.Module], nn.Module], digits: Digits
) -> None:
    model = random(digits.model)
    found = check(digits, model)
    assert found.random
    assert "two calls with the same images differ" in found.verdict
    mean = Expectation(model, at_once=10, generator=generator("check"))
    before = mean.generator.get_state()
    averaged = check(digits, mean)
    assert averaged.random
    assert averaged.faults == ()
    assert found.repeat_cosine is not None
    assert averaged.repeat_cosine is not None
    assert averaged.repeat_cosine > found.repeat_cosine
    # On the same draws even a random model's gradient agrees with differences.
    assert averaged.cosine is not None
    assert averaged.cosine > 0.98
    assert torch.equal(mean.generator.get_state(), before)


def test_too_few_samples_are_found(digits: Digits) -> None:
    found = check(digits, Expectation(Noisy(digits.model, std=30.0), 2, generator=generator(1)))
    assert "Take more samples" in found.verdict


def test_saturation_is_found(digits: Digits) -> None:
    found = check(digits, digits.model, Step(lambda z: 1000 * z))
    assert found.saturated == found.zero == 1
    assert "saturated" in found.verdict
    assert "that of the margin of the logits is not" in found.verdict


@pytest.mark.parametrize("scale", [1, 100])
def test_probabilities_are_found(scale: int, digits: Digits) -> None:
    found = check(digits, digits.model, Step(lambda z: scale * z), nn.Softmax(1))
    assert found.probabilities
    assert "look like probabilities" in found.verdict
    assert ("exactly zero" in found.verdict) == (scale == 100)


def test_a_gradient_that_misleads_is_found(digits: Digits) -> None:
    weights = torch.randn(64, 10, generator=generator("misleading"))

    def turned(images: Tensor) -> Tensor:
        astray = images.flatten(1) @ weights
        logits: Tensor = digits.model(images.detach()) + astray - astray.detach()
        return logits

    found = check(digits, Step(turned))
    assert found.cosine is not None
    assert found.cosine < 0.5
    assert "misleads" in found.verdict


def test_purifiers_of_the_house_pass(images: Tensor) -> None:
    classifier = tiny_classifier()
    with seeded(0):
        learned = ConvAutoencoder(widths=(4, 8))
    for purifier in (learned, BitDepth(), JPEG()):
        model = Defended(classifier, purifier).eval()
        found = check_gradients(model, images, model(images).argmax(1), directions=4)
        assert found.faults == ()


def test_nothing_is_changed(classifier: Classifier, images: Tensor, labels: Tensor) -> None:
    before, state = torch.get_rng_state(), images.clone()
    check_gradients(classifier, images, labels, directions=1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(images, state)
    assert all(p.grad is None for p in classifier.parameters())
    first = check_gradients(classifier, images, labels, directions=1)
    assert first == check_gradients(classifier, images, labels, directions=1)


def test_bad_arguments_are_refused(classifier: Classifier, images: Tensor, labels: Tensor) -> None:
    with pytest.raises(InputError, match="images"):
        check_gradients(classifier, images * 3, labels)
    with pytest.raises(InputError, match="class indices"):
        check_gradients(classifier, images, labels + 1)
    with pytest.raises(InputError, match="directions"):
        check_gradients(classifier, images, labels, directions=0)
    with pytest.raises(InputError, match="evaluation mode"):
        check_gradients(classifier.train(), images, labels)


def test_signs_of_a_batch(classifier: Classifier) -> None:
    images = torch.full((4, 3, 2, 2), 0.5)
    images[1, 0, 0, 0] = 1 + 5e-7
    images[2, 1, 1, 1] = -1e-5
    images[3, 2, 0, 1] = torch.nan
    assert out_of_range(images).tolist() == [False, False, True, True]
    assert in_training(classifier) == ()
    classifier.network.train()
    assert "network" in in_training(classifier)
    first = torch.tensor([[1.0, 2], [1000, 0]])
    assert differing(first, first + 1e-3).tolist() == [True, False]
