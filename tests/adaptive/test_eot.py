from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from jernih.adaptive import Expectation
from jernih.attacks import PGD, DeepFool
from jernih.randomness import generator, seeded
from jernih.validate import InputError
from tests.attacks.known import Digits, linear_model, middling


class Masked(nn.Module):
    """Each image's pixels are kept or left out at random, by torch's own random numbers."""

    def __init__(self, model: nn.Module, each: bool = True) -> None:
        super().__init__()
        self.model = model
        self.each = each

    def forward(self, images: Tensor) -> Tensor:
        shape = images.shape if self.each else images[:1].shape
        logits: Tensor = self.model(images * (torch.rand(shape) < 0.5))
        return logits


class Noisy(nn.Module):
    """Adds noise drawn from the generator that it is given, and notes the batches' sizes."""

    def __init__(self, model: nn.Module, std: float = 0.3) -> None:
        super().__init__()
        self.model = model
        self.std = std
        self.batches: list[int] = []

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        self.batches.append(len(images))
        noise = torch.randn(images.shape, generator=generator)
        logits: Tensor = self.model(images + self.std * noise)
        return logits


def slope(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    leaf = images.clone().requires_grad_(True)
    loss = functional.cross_entropy(model(leaf), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


def drawn(model: nn.Module, images: Tensor, samples: int, seed: int, **kwargs: Any) -> Tensor:
    """The draws' logits (S, N, K), with the seeds that the class says."""
    source = generator(seed)
    seeds = [int(torch.randint(2**62, (), generator=source)) for _ in range(samples)]
    logits = []
    for each in seeds:
        with seeded(each):
            logits.append(model(images))
    return torch.stack(logits)


def test_the_mean_of_logits_or_of_probabilities() -> None:
    model, images = Masked(linear_model()), middling()
    draws = drawn(model, images, 5, 1)
    mean = Expectation(model, 5, generator=generator(1))(images)
    torch.testing.assert_close(mean, draws.mean(0))
    soft = Expectation(model, 5, average="probabilities", generator=generator(1))(images)
    torch.testing.assert_close(soft.exp(), draws.softmax(2).mean(0))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("at_once", [1, 3])
def test_the_gradient_is_the_mean_over_the_draws(at_once: int, recompute: bool) -> None:
    linear, images = linear_model(), middling(4)
    layer = next(m for m in linear.modules() if isinstance(m, nn.Linear))
    model = Expectation(
        Masked(linear, each=False), 7, at_once=at_once, recompute=recompute, generator=generator(2)
    )
    source, masks = generator(2), []
    for _ in range(0, 7, at_once):
        with seeded(int(torch.randint(2**62, (), generator=source))):
            masks.append((torch.rand(images[:1].shape) < 0.5).float())
    weights = [min(at_once, 7 - start) / 7 for start in range(0, 7, at_once)]
    kept = sum((w * m for w, m in zip(weights, masks, strict=True)), torch.zeros(1))
    leaf = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    expected = (layer.weight[1].view(1, 3, 4, 4) * kept).expand_as(images)
    torch.testing.assert_close(gradient, expected)


def test_memory_is_spared_by_asking_again() -> None:
    noisy, images, labels = Noisy(linear_model()), middling(2), torch.tensor([0, 1])
    kept = slope(Expectation(noisy, 6, generator=generator(3)), images, labels)
    assert noisy.batches == [2] * 6
    again = slope(Expectation(noisy, 6, recompute=True, generator=generator(3)), images, labels)
    assert noisy.batches == [2] * 18
    torch.testing.assert_close(again, kept)
    Expectation(noisy, 6, at_once=4)(images)
    assert noisy.batches[-2:] == [8, 4]


def test_new_draws_at_each_call_and_the_same_under_the_same_generator() -> None:
    images = middling(3)
    for model in (Masked(linear_model()), Noisy(linear_model())):
        mean = Expectation(model, 3, generator=generator(4))
        first, second = mean(images), mean(images)
        assert not torch.equal(first, second)
        assert torch.equal(Expectation(model, 3, generator=generator(4))(images), first)
        assert not torch.equal(Expectation(model, 3)(images), Expectation(model, 3)(images))


def test_torchs_own_random_numbers_stay_as_they_are() -> None:
    mean = Expectation(Masked(linear_model()), 3, recompute=True)
    before = torch.get_rng_state()
    slope(mean, middling(2), torch.tensor([0, 1]))
    assert torch.equal(before, torch.get_rng_state())


def test_a_steady_model_is_left_as_it_is() -> None:
    model, images = linear_model(), middling()
    torch.testing.assert_close(Expectation(model, 4, at_once=2)(images), model(images))


def test_attacks_climb_the_mean(digits: Digits) -> None:
    """Against heavy noise the mean's gradient fools more than one draw's, judged by many draws."""
    noisy = Noisy(digits.model, std=0.5)
    images, labels = digits.images[:48], digits.labels[:48]
    attack = PGD(0.1, steps=10, stop_early=False)
    judge = Expectation(noisy, 100, at_once=10, generator=generator("judge"))
    losses = []
    for samples in (1, 20):
        model = Expectation(noisy, samples, at_once=20, generator=generator("draws")).eval()
        made = attack(model, images, labels, generator=generator("attack")).images
        with torch.no_grad():
            losses.append(float(functional.cross_entropy(judge(made), labels)))
    assert losses[1] > 1.1 * losses[0]


@pytest.mark.parametrize("recompute", [False, True])
def test_attacks_that_want_many_gradients_take_it(recompute: bool) -> None:
    linear, images = linear_model(), middling(4)
    noisy = Noisy(linear, 0.003)
    model = Expectation(noisy, 4, recompute=recompute, generator=generator(5)).eval()
    labels = linear(images).argmax(1)
    assert bool(DeepFool(overshoot=0.3)(model, images, labels).success.all())


def test_takes_over_the_models_mode() -> None:
    model = linear_model()
    assert not Expectation(model).training
    assert Expectation(model.train()).training


def test_bad_options_are_refused() -> None:
    with pytest.raises(InputError, match="samples"):
        Expectation(linear_model(), 0)
    with pytest.raises(InputError, match="at_once"):
        Expectation(linear_model(), at_once=0)
    with pytest.raises(InputError, match="average"):
        Expectation(linear_model(), average="votes")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="model"):
        Expectation(torch.tanh)  # type: ignore[arg-type]
