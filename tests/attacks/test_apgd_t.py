"""Targeted Auto-PGD against what is known of it and another implementation."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

from jernih.attacks import APGD, APGDT
from jernih.randomness import generator
from jernih.types import Norm
from jernih.validate import InputError
from tests.attacks.gradient_peers import of_torchattacks
from tests.attacks.known import (
    Digits,
    linear_model,
    middling,
    nearest_on_linear,
    share_agrees,
)

BOUNDS: list[tuple[Norm, float]] = [("linf", 0.1), ("l2", 0.55)]
"""Bounds at which about half of the digits withstand."""


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_finds_what_there_is_on_a_linear_model(norm: Norm, classes: int) -> None:
    model, images = linear_model(classes), middling()
    labels = model(images).argmax(1)
    _, sizes = nearest_on_linear(model, images, labels, norm)
    eps = float(sizes.median()) * 1.05
    result = APGDT(eps, norm=norm)(model, images, labels, generator=generator(0))
    near = sizes < eps * 0.99
    assert 0 < int(near.sum()) < len(images)
    assert bool(result.success[near].all())
    assert not bool(result.success[sizes > eps * 1.001].any())


@pytest.mark.parametrize(("norm", "eps"), BOUNDS)
def test_as_many_withstand_as_in_torchattacks(norm: Norm, eps: float, digits: Digits) -> None:
    steps, model = 10, digits.model
    attack = APGDT(eps, norm=norm, steps=steps)
    result = attack(model, digits.images, digits.labels, generator=generator(0))
    theirs = of_torchattacks(
        "APGDT", model, digits.images, digits.labels,
        norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, steps=steps,
    )  # fmt: skip
    fooled = model(theirs).argmax(1) != digits.labels
    assert 0.2 < float(fooled.float().mean()) < 0.8
    assert share_agrees(result.success, fooled)
    plain = APGD(eps, norm=norm, steps=steps, loss="dlr")
    single = plain(model, digits.images, digits.labels, generator=generator(0))
    assert int(result.success.sum()) >= int(single.success.sum())


def test_aims_at_one_class_after_the_other(digits: Digits) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[int] = []

        def forward(self, images: Tensor) -> Tensor:
            self.seen.append(len(images))
            logits: Tensor = digits.model(images)
            return logits

    for targets, rounds in ((1, 1), (3, 3), (20, 9)):
        model = Counting().eval()
        attack = APGDT(0.0, steps=2, targets=targets)
        attack(model, digits.images, digits.labels, generator=generator(0))
        assert len(model.seen) == 2 + 3 * rounds
    model = Counting().eval()
    APGDT(0.1, steps=5)(model, digits.images, digits.labels, generator=generator(0))
    assert model.seen[-2] < model.seen[1] == len(digits.labels)  # the fooled leave


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_ranks_are_those_of_the_clean_image(rank: int, digits: Digits) -> None:
    logits = digits.model(digits.images)
    aimed = APGDT()._rounds(logits, digits.labels)
    assert len(aimed) == 9
    expected = logits.argsort(1, descending=True)[:, rank + 1]  # all are classified rightly
    assert torch.equal(aimed[rank], expected)


def test_few_classes_are_told_of(two_digits: Digits, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "jernih"):
        result = APGDT(0.3, steps=20)(
            two_digits.model, two_digits.images, two_digits.labels, generator=generator(0)
        )
    assert "2 classes" in caplog.text
    plain = APGD(0.3, steps=20)(
        two_digits.model, two_digits.images, two_digits.labels, generator=generator(0)
    )
    assert 0 < int(plain.success.sum()) <= int(result.success.sum())


def test_refuses_bad_options() -> None:
    with pytest.raises(InputError, match="targets"):
        APGDT(0.1, targets=0)
    with pytest.raises(InputError, match="norm"):
        APGDT(0.1, norm="l3")  # type: ignore[arg-type]


def test_defaults_are_the_published_ones() -> None:
    described = APGDT().describe()
    assert {k: described[k] for k in ("steps", "restarts", "targets", "rho")} == {
        "steps": 100, "restarts": 1, "targets": 9, "rho": 0.75,
    }  # fmt: skip
    assert described["eps"] == "8/255"
