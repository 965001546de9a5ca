"""Transfer: made on one model, judged on another, which is never asked for a gradient."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import Tensor, nn

from jernih.assess.plan import AssessmentPlan
from jernih.attacks import FGSM, PGD, DeepFool, Transfer
from jernih.randomness import generator
from jernih.validate import InputError
from tests.attacks.known import Digits, train_digits


class Asked(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.times = model, 0

    def forward(self, images: Tensor) -> Tensor:
        self.times += 1
        assert not images.requires_grad
        logits: Tensor = self.model(images)
        return logits


def test_what_fools_one_fools_another(digits: Digits) -> None:
    other = train_digits(count=30).model
    first = next(other.parameters())
    first.data += 0.05 * torch.randn(first.shape, generator=generator("other"))
    target = Asked(digits.model).eval()
    attack = Transfer(PGD(0.2), other)
    result = attack(target, digits.images, digits.labels, generator=generator(0))
    direct = PGD(0.2)(other, digits.images, digits.labels, generator=generator(0))
    assert torch.equal(result.images, direct.images)
    assert target.times == 1
    assert 0.2 < float(result.success.float().mean()) <= 1
    assert torch.equal(result.predictions, digits.model(result.images).argmax(1))
    several = attack.sweep(target, digits.images, digits.labels, [0.01, 0.2])
    assert several[0].success.sum() <= several[1].success.sum()


def test_carries_over_bound_norm_and_goal(digits: Digits) -> None:
    attack = Transfer(PGD(1.5, norm="l2", targeted=True), digits.model)
    assert (attack.norm, attack.eps, attack.targeted) == ("l2", 1.5, True)


def test_describes_the_attack_and_the_surrogate(digits: Digits) -> None:
    told = Transfer(PGD(1.5, norm="l2"), digits.model).describe()
    assert (told["name"], told["eps"], told["targeted"]) == ("transfer", 1.5, False)
    assert told["attack"]["name"] == "pgd"
    assert told["attack"]["norm"] == "l2"
    assert "eps" not in told["attack"]
    assert json.loads(json.dumps(told)) == told
    other = copy.deepcopy(digits.model)
    next(other.parameters()).data.flatten()[0] += 1e-3
    plans = [
        AssessmentPlan(Transfer(attack, model), ("8/255",)).fingerprint()
        for attack, model in (
            (PGD(), digits.model),
            (FGSM(), digits.model),
            (PGD(steps=3), digits.model),
            (PGD(), other),
        )
    ]
    assert len(set(plans)) == 4
    again = AssessmentPlan(Transfer(PGD("4/255"), copy.deepcopy(digits.model)), ("8/255",))
    assert again.fingerprint() == plans[0]  # the plan names the bounds


def test_a_search_of_the_smallest_perturbation_is_left_to_the_bit(digits: Digits) -> None:
    attack, images, labels = DeepFool(), digits.images, digits.labels
    found = attack(digits.model, images, labels)
    assert bool(found.success.all())
    moved = Transfer(attack, digits.model)(digits.model, images, labels)
    assert torch.equal(moved.images, found.images)
    assert bool(moved.success.all())


def test_refuses(digits: Digits) -> None:
    with pytest.raises(InputError, match="attack: expected an attack"):
        Transfer("fgsm", digits.model)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="surrogate"):
        Transfer(FGSM(), nn.Sequential(nn.Dropout()).train())
