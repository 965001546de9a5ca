"""HopSkipJump: near the closed form, as near as its peers, from decisions alone."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jernih.attacks import HopSkipJump, distance
from jernih.randomness import generator
from jernih.types import Norm
from jernih.validate import InputError
from tests.attacks.gradient_peers import of_art
from tests.attacks.known import Digits, linear_model, middling, nearest_on_linear


class OneHot(nn.Module):
    """A model that names a class and says no more."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()


class Single(nn.Module):
    """ART asks in double precision."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.float())
        return logits


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_near_the_closed_form_on_a_linear_model(norm: Norm) -> None:
    model, images = linear_model(), middling(6)
    labels = model(images).argmax(1)
    result = HopSkipJump(norm=norm, steps=25)(
        OneHot(model).eval(), images, labels, generator=generator("hop")
    )
    assert bool(result.success.all())
    _, nearest = nearest_on_linear(model, images, labels, norm)
    assert bool((result.distances >= nearest * (1 - 1e-3)).all())
    assert float((result.distances / nearest).median()) < 1.25


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_beside_peers(digits: Digits, norm: Norm) -> None:
    """Decision attacks are random: over the images, ours has to be no farther than any peer."""
    images, labels = digits.images[:12], digits.labels[:12]
    ours = HopSkipJump(norm=norm, steps=8, initial=50)(
        digits.model, images, labels, generator=generator("hop")
    )
    assert bool(ours.success.all())
    np.random.seed(0)  # noqa: NPY002 - ART draws from the global numbers
    made = of_art(
        "HopSkipJump",
        Single(digits.model).eval(),
        images,
        labels,
        norm=np.inf if norm == "linf" else 2,
        max_iter=8,
        init_eval=50,
        max_eval=10_000,
        verbose=False,
    )
    made = made.float()
    fooled = digits.model(made).argmax(1) != labels
    assert int(fooled.sum()) >= 10
    median = float(distance(images, made, norm)[fooled].median())
    assert float(ours.distances.median()) <= 1.1 * median


def test_beside_foolbox(digits: Digits) -> None:
    images, labels = digits.images[:12], digits.labels[:12]
    ours = HopSkipJump(steps=8, initial=50)(
        digits.model, images, labels, generator=generator("hop")
    )
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        foolbox = pytest.importorskip("foolbox")
        wrapped = foolbox.PyTorchModel(digits.model, bounds=(0, 1), device="cpu")
        attack = foolbox.attacks.HopSkipJumpAttack(
            init_attack=foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(steps=50),
            steps=8,
            initial_gradient_eval_steps=50,
        )
        made = attack.run(wrapped, images, labels)
    fooled = digits.model(made).argmax(1) != labels
    median = float(distance(images, made, "l2")[fooled].median())
    assert float(ours.distances.median()) <= 1.1 * median


def test_beside_cleverhans(digits: Digits) -> None:
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - cleverhans draws from the global numbers
        module = pytest.importorskip("cleverhans.torch.attacks.hop_skip_jump_attack")
        images, labels = digits.images[:6], digits.labels[:6]
        made = module.hop_skip_jump_attack(
            digits.model,
            images,
            norm=2,
            num_iterations=6,
            initial_num_evals=50,
            max_num_evals=1000,
            batch_size=64,
            verbose=False,
            clip_min=0,
            clip_max=1,
        )
    ours = HopSkipJump(steps=6, initial=50)(
        digits.model, images, labels, generator=generator("hop")
    )
    median = float(distance(images, made.detach(), "l2").median())
    assert float(ours.distances.median()) <= 1.15 * median


def test_more_steps_come_nearer(digits: Digits) -> None:
    images, labels = digits.images[:8], digits.labels[:8]
    few, many = (
        HopSkipJump(steps=n, initial=30)(digits.model, images, labels, generator=generator(0))
        for n in (1, 12)
    )
    assert float(many.distances.median()) < 0.7 * float(few.distances.median())


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
    for option in ("steps", "initial", "most", "tries"):
        with pytest.raises(InputError, match=option):
            HopSkipJump(**{option: 0})  # type: ignore[arg-type]
