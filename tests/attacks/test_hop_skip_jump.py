"""HopSkipJump: near the closed form, as near as its peers, from decisions alone."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jernih.attacks import HopSkipJump, distance
from jernih.classifiers import Classifier
from jernih.randomness import generator
from jernih.types import Norm
from jernih.validate import InputError
from tests.attacks.gradient_peers import of_art
from tests.attacks.known import Digits, linear_model, middling, nearest_on_linear

WORK = {"steps": 6, "initial": 40}
COUNT = 20
APART = 0.18
"""The log of the ratio of two searches' distances has a standard deviation of about 0.27 over
images, also between two of our own: three standard errors of its mean over 20 images."""


class Broken(torch.autograd.Function):
    """The identity, whose gradient must not be asked for."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        raise AssertionError("a gradient was asked for")


class Decides(nn.Module):
    """A model that names a class and says no more; it counts the images that it is shown.

    ART shows them in double precision.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.shown = model, 0
        self.graphs: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        self.shown += len(images)
        self.graphs.append(torch.is_grad_enabled())
        logits: Tensor = Broken.apply(self.model(images.float()))
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]) + 0 * logits.nan_to_num()


def log_ratio(images: Tensor, ours: Tensor, theirs: Tensor, norm: Norm) -> float:
    """Mean log of how much farther ours are than theirs."""
    return float((distance(images, ours, norm) / distance(images, theirs, norm)).log().mean())


def onto_the_boundary(
    model: nn.Module, images: Tensor, labels: Tensor, made: Tensor, norm: Norm
) -> Tensor:
    """Images drawn back to where the model would be right, by an independent bisection."""
    nearest = []
    for image, label, point in zip(images, labels, made, strict=True):
        change, low, high = point - image, 0.0, 1.0
        for _ in range(14):
            share = (low + high) / 2
            cut = share * float(change.abs().max())
            tried = image + (share * change if norm == "l2" else change.clamp(-cut, cut))
            wrong = int(model(tried[None]).argmax(1)) != int(label)
            low, high = (low, share) if wrong else (share, high)
        cut = high * float(change.abs().max())
        nearest.append(image + (high * change if norm == "l2" else change.clamp(-cut, cut)))
    return torch.stack(nearest)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_near_the_closed_form_on_a_linear_model(norm: Norm) -> None:
    model, images = linear_model(), middling(12)
    labels = model(images).argmax(1)
    few, many = (
        HopSkipJump(norm=norm, steps=steps)(model, images, labels, generator=generator("hop"))
        for steps in (5, 30)
    )
    assert bool(many.success.all())
    _, nearest = nearest_on_linear(model, images, labels, norm)
    assert bool((many.distances >= nearest * (1 - 1e-4)).all())
    ratio = many.distances / nearest
    assert float(ratio.median()) < (1.02 if norm == "l2" else 1.15)
    assert float(ratio.median()) < float((few.distances / nearest).median())


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_decisions_suffice(digits: Digits, norm: Norm) -> None:
    images, labels = digits.images[:5], digits.labels[:5]
    attack = HopSkipJump(norm=norm, steps=3, initial=20)
    silent = Decides(digits.model.requires_grad_(True)).eval()
    try:
        leaf = images.clone().requires_grad_(True)
        answers = silent(leaf).sum()
        with pytest.raises(AssertionError, match="a gradient was asked for"):
            torch.autograd.grad(answers, leaf)
        silent.graphs.clear()
        made = attack.perturb(silent, images, labels, [attack.eps], generator=generator(0))[0]
    finally:
        digits.model.requires_grad_(False)
    assert not any(silent.graphs)
    assert torch.equal(made, attack(digits.model, images, labels, generator=generator(0)).images)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_beside_art(digits: Digits, norm: Norm) -> None:
    images, labels = digits.images[:COUNT], digits.labels[:COUNT]
    asked, told = Decides(digits.model).eval(), Decides(digits.model).eval()
    ours = HopSkipJump(norm=norm, **WORK)(asked, images, labels, generator=generator("hop"))
    assert bool(ours.success.all())
    state = np.random.get_state()  # noqa: NPY002 - ART draws from the global numbers
    np.random.seed(0)  # noqa: NPY002
    try:
        made = of_art(
            "HopSkipJump", told, images, labels, norm=2 if norm == "l2" else np.inf,
            max_iter=WORK["steps"], init_eval=WORK["initial"], verbose=False,
        ).float()  # fmt: skip
    finally:
        np.random.set_state(state)  # noqa: NPY002
    assert asked.shown == pytest.approx(told.shown, rel=0.05)
    # It ends with a step away from the boundary, ours with the way back.
    made = onto_the_boundary(digits.model, images, labels, made, norm)
    assert abs(log_ratio(images, ours.images, made, norm)) < APART


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_beside_foolbox(digits: Digits, norm: Norm) -> None:
    images, labels = digits.images[:COUNT], digits.labels[:COUNT]
    asked, told = Decides(digits.model).eval(), Decides(digits.model).eval()
    ours = HopSkipJump(norm=norm, **WORK)(asked, images, labels, generator=generator("hop"))
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        foolbox = pytest.importorskip("foolbox")
        torch.manual_seed(0)
        wrapped = foolbox.PyTorchModel(told, bounds=(0, 1), device="cpu")
        attack = foolbox.attacks.HopSkipJumpAttack(
            steps=WORK["steps"], initial_gradient_eval_steps=WORK["initial"], constraint=norm
        )
        # One image at a time: 3.3.4 divides the directions by their length over the whole batch.
        made = torch.cat(
            [attack.run(wrapped, images[k : k + 1], labels[k : k + 1]) for k in range(COUNT)]
        )
    assert asked.shown == pytest.approx(told.shown, rel=0.1)
    assert abs(log_ratio(images, ours.images, made, norm)) < APART


def test_beside_cleverhans(digits: Digits) -> None:
    # In L2 alone: 4.0.0 compares a tensor with a number in L∞, which today's torch refuses.
    images, labels = digits.images[:COUNT], digits.labels[:COUNT]
    asked, told = Decides(digits.model).eval(), Decides(digits.model).eval()
    ours = HopSkipJump(**WORK)(asked, images, labels, generator=generator("hop"))  # type: ignore[arg-type]
    with warnings.catch_warnings(), torch.random.fork_rng(), torch.no_grad():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("cleverhans.torch.attacks.hop_skip_jump_attack")
        torch.manual_seed(0)
        options: dict[str, Any] = {
            "num_iterations": WORK["steps"], "initial_num_evals": WORK["initial"],
            "verbose": False,
        }  # fmt: skip
        made = module.hop_skip_jump_attack(told, images, 2, **options)
    assert asked.shown == pytest.approx(told.shown, rel=0.05)
    assert abs(log_ratio(images, ours.images, made, "l2")) < APART


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_directions_outlast_rounding(norm: Norm) -> None:
    """On large images the published radius is less than single precision can add to a pixel."""
    side, count, attack = 128, 200, HopSkipJump(norm=norm)
    size = 3 * side**2
    slope = torch.randn(3, side, side, generator=generator("slope"))
    slope /= slope.norm()
    point = 0.3 + 0.4 * torch.rand(1, 3, side, side, generator=generator("point"))
    level = (point * slope).sum() - 1e-7

    class Plane(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            height = (images * slope).sum((1, 2, 3)) - level
            return torch.stack([torch.zeros_like(height), height], 1)

    radius = attack._radius(torch.tensor([0.05]), 2, size)
    label, draws = torch.tensor([0]), [generator("around")]
    way = attack._direction(Plane().eval(), point, label, radius, count, draws)
    cosine = float((way[0] * slope).sum() / way.norm())
    # What B decisions tell of a direction among d: √(2B / πd), and in signs √(2 / π) of it.
    known = math.sqrt(2 * count / math.pi / size) * (1 if norm == "l2" else math.sqrt(2 / math.pi))
    assert cosine == pytest.approx(known, abs=3 / math.sqrt(size))
    # Small images keep the published length.
    torch.testing.assert_close(attack._radius(torch.tensor([0.6]), 2, 64), torch.tensor([0.6 / 64]))


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_outcome_outlasts_other_batches(digits: Digits, norm: Norm) -> None:
    images, labels = digits.images, digits.labels
    # A gamma so small that the search ends at the boundary to the last bit.
    attack = HopSkipJump(norm=norm, steps=2, initial=10, gamma=1e-9)
    result = attack(digits.model, images, labels, generator=generator(0))
    assert bool(result.success.all())
    alone = torch.cat([digits.model(image[None]).argmax(1) for image in result.images])
    assert bool((alone != labels).all())


def test_other_batch_same_images(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = digits.images[:20], digits.labels[:20]
    attack = HopSkipJump(steps=3, initial=20)
    whole = attack(digits.model, images, labels, generator=generator(0)).images
    part = attack(digits.model, images[:3], labels[:3], generator=generator(0)).images
    torch.testing.assert_close(part, whole[:3], atol=1e-3, rtol=0)
    # However many questions go together, those of one image too.
    for most in (1, 50):
        monkeypatch.setattr("jernih.attacks.hop_skip_jump.QUESTIONS", most)
        again = attack(digits.model, images[:3], labels[:3], generator=generator(0))
        assert bool(again.success.all())
        if most == 50:
            torch.testing.assert_close(again.images, whole[:3], atol=1e-3, rtol=0)


def test_wrong_images_stay_and_cost_one_question(digits: Digits) -> None:
    images, labels = digits.images[:10], digits.labels[:10].clone()
    labels[3:] = (labels[3:] + 1) % 10
    model = Decides(digits.model).eval()
    made = HopSkipJump(**WORK).perturb(model, images, labels, [10.0], generator=generator(0))[0]  # type: ignore[arg-type]
    assert torch.equal(made[3:], images[3:])
    assert bool((distance(images, made, "l2")[:3] > 0).all())
    spent = model.shown - len(images)
    model.shown = 0
    HopSkipJump(**WORK).perturb(model, images[:3], labels[:3], [10.0], generator=generator(0))  # type: ignore[arg-type]
    assert spent == pytest.approx(model.shown - 3, rel=0.05)


def test_more_steps_come_nearer(digits: Digits) -> None:
    images, labels = digits.images[:8], digits.labels[:8]
    few, many = (
        HopSkipJump(steps=n, initial=30)(digits.model, images, labels, generator=generator(0))
        for n in (1, 12)
    )
    assert bool((many.distances <= few.distances + 1e-6).all())
    assert float(many.distances.median()) < 0.7 * float(few.distances.median())


def test_one_logit(two_digits: Digits) -> None:
    """A single sigmoid logit, which ART and foolbox do not take."""
    own = two_digits.model

    class Single(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = own(images)
            return logits[:, 1:] - logits[:, :1]

    model = Classifier(Single(), ["zero", "one"], mean=(0.0,), std=(1.0,)).eval()
    images, labels = two_digits.images[:6], two_digits.labels[:6]
    attack = HopSkipJump(**WORK)  # type: ignore[arg-type]
    result = attack(model, images, labels, generator=generator(0))
    assert bool(result.success.any())
    assert torch.equal(result.success, result.distances > 0)


def test_no_start_no_attack() -> None:
    class Stubborn(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1).mean(1, keepdim=True) * 0 + torch.tensor([[1.0, 0.0]])

    images = middling(2)
    result = HopSkipJump(tries=3)(Stubborn().eval(), images, torch.zeros(2, dtype=torch.int64))
    assert torch.equal(result.images, images)
    assert not bool(result.success.any())


def test_refuses() -> None:
    with pytest.raises(InputError, match="norm"):
        HopSkipJump(norm="l1")
    with pytest.raises(InputError, match="gamma"):
        HopSkipJump(gamma=0)
    for option in ("steps", "initial", "most", "tries"):
        with pytest.raises(InputError, match=option):
            HopSkipJump(**{option: 0})  # type: ignore[arg-type]
