"""Transfer: made on one model, judged on another, which is never asked for a gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from jernih.attacks import FGSM, PGD, Transfer
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
    assert attack.describe() == {"name": "transfer"}


def test_refuses(digits: Digits) -> None:
    with pytest.raises(InputError, match="attack: expected an attack"):
        Transfer("fgsm", digits.model)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="surrogate"):
        Transfer(FGSM(), nn.Sequential(nn.Dropout()).train())
