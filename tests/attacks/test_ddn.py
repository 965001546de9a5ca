"""DDN against nearest points of linear models and against foolbox."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from jernih.attacks import DDN, CarliniWagner
from jernih.attacks.base import unit
from jernih.attacks.losses import cross_entropy, log_odds
from jernih.validate import InputError
from tests.attacks.known import Digits, agree, inner, linear_model, middling, nearest_on_linear


def test_linear_model_in_closed_form() -> None:
    model, images = linear_model(2), middling()
    labels = model(images).argmax(1)
    points, sizes = nearest_on_linear(model, images, labels, "l2")
    result = DDN(steps=200)(model, images, labels)
    assert bool(result.success.all())
    assert bool((result.distances >= sizes - 1e-5).all())
    torch.testing.assert_close(result.distances, sizes, rtol=0.01, atol=1e-3)
    torch.testing.assert_close(result.images, points, rtol=0, atol=1e-3)


def test_other_classes_bend_the_way_on_a_linear_model() -> None:
    model, images = linear_model(4), middling()
    labels = model(images).argmax(1)
    _, sizes = nearest_on_linear(model, images, labels, "l2")
    result = DDN(steps=300, initial=0.2)(model, images, labels)
    assert bool(result.success.all())
    assert bool((result.distances >= sizes - 1e-5).all())
    # The cross-entropy climbs towards all other classes at once, not the nearest alone.
    assert bool((result.distances < 1.15 * sizes).all())


def foolbox_made(digits: Digits, goal: str, labels: Tensor, steps: int) -> Tensor:
    foolbox = pytest.importorskip("foolbox", exc_type=ImportError)
    model = foolbox.PyTorchModel(digits.model, bounds=(0, 1), device="cpu")
    criterion = getattr(foolbox.criteria, goal)(labels)
    attack = foolbox.attacks.DDNAttack(init_epsilon=1.0, steps=steps, gamma=0.05)
    made: Tensor = attack(model, digits.images, criterion, epsilons=None)[0]
    return made


@pytest.mark.parametrize("steps", [20, 100])
def test_agrees_with_foolbox(digits: Digits, steps: int) -> None:
    model, images, labels = digits.model, digits.images, digits.labels
    theirs = foolbox_made(digits, "Misclassification", labels, steps)
    ours = DDN(steps=steps)(model, images, labels).images
    agree(model, images, labels, ours, theirs, "l2")
    assert float((ours - theirs).abs().median()) < 1e-4


def test_agrees_with_foolbox_targeted(digits: Digits) -> None:
    wanted = (digits.labels + 1) % 10
    theirs = foolbox_made(digits, "TargetedMisclassification", wanted, 100)
    ours = DDN(steps=100, targeted=True)(digits.model, digits.images, wanted).images
    agree(digits.model, digits.images, wanted, ours, theirs, "l2", targeted=True)


def test_gets_as_near_as_carlini_and_wagner(digits: Digits) -> None:
    grey = inner(digits, 40)
    model, images, labels = grey.model, grey.images, grey.labels
    ours = DDN()(model, images, labels)
    theirs = CarliniWagner(searches=5, steps=100)(model, images, labels)
    agree(model, images, labels, ours.images, theirs.images, "l2")


def test_two_classes(two_digits: Digits) -> None:
    result = DDN()(two_digits.model, two_digits.images, two_digits.labels)
    assert bool(result.success.all())


def test_what_is_found_survives_being_saved(digits: Digits) -> None:
    model, images, labels = digits.model, (digits.images * 255).round() / 255, digits.labels
    result = DDN(levels=256)(model, images, labels)
    saved = (result.images * 255).round().to(torch.uint8)
    assert bool(result.success.all())
    assert bool((model(saved / 255).argmax(1) != labels).all())
    plain = DDN()(model, images, labels)
    torch.testing.assert_close(
        result.distances.median(), plain.distances.median(), rtol=0.05, atol=0
    )


def test_a_sure_model_is_fooled(digits: Digits) -> None:
    class Sure(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = 1e4 * digits.model(images)
            return logits

    images = digits.images.clone().requires_grad_(True)
    values = cross_entropy(Sure()(images), digits.labels)
    (gradient,) = torch.autograd.grad(values.sum(), images)
    assert not bool(gradient.any())
    sure = DDN()(Sure().eval(), digits.images, digits.labels)
    assert bool(sure.success.all())


def test_a_zero_gradient_is_left_at_random() -> None:
    class Step(nn.Module):
        """Flat at first; another class begins 0.1 away in about every second direction."""

        def forward(self, images: Tensor) -> Tensor:
            away = (images - 0.5).flatten(1).sum(1)
            return torch.stack([(away - 0.1).clamp_min(0), torch.full_like(away, 0.01)], 1)

    images, labels = torch.full((40, 1, 4, 4), 0.5), torch.ones(40, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    result = DDN(steps=60)(Step().eval(), images, labels, generator=generator)
    assert 10 <= int(result.success.sum()) <= 30


def test_odds_have_the_direction_of_the_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 5, generator=generator).requires_grad_(True)
    labels = torch.arange(8) % 5
    odds = log_odds(logits, labels)
    torch.testing.assert_close(nn.functional.softplus(odds), cross_entropy(logits, labels))
    both = [
        torch.autograd.grad(f(logits, labels).sum(), logits)[0] for f in (log_odds, cross_entropy)
    ]
    one, other = (unit(g.view(8, 1, 1, 5)) for g in both)
    torch.testing.assert_close(one, other)


def test_directions_of_any_length() -> None:
    ways = torch.tensor([[3.0, 4], [3e-30, 4e-30], [0, 0], [3e30, 4e30]]).view(4, 1, 1, 2)
    expected = torch.tensor([[0.6, 0.8], [0.6, 0.8], [0, 0], [0.6, 0.8]]).view(4, 1, 1, 2)
    torch.testing.assert_close(unit(ways), expected)


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"initial": 0}, {"gamma": 0}, {"gamma": 1}, {"levels": 1}]
)
def test_refuses_bad_options(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        DDN(**options)  # type: ignore[arg-type]
