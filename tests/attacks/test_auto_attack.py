"""AutoAttack: who attacks, in which order, and what is left."""

from __future__ import annotations

import logging
import warnings

import pytest
import torch
from torch import Tensor

from jernih.attacks import APGD, APGDT, ATTACKS, AutoAttack
from jernih.randomness import generator
from jernih.types import Norm
from jernih.validate import InputError
from tests.attacks.known import Digits, share_agrees, train_digits
from tests.conftest import tiny_classifier

BOUNDS: list[tuple[Norm, float]] = [("linf", 0.1), ("l2", 0.55)]
"""Bounds at which about half of the digits withstand."""
APGDS = ("apgd-ce", "apgd-dlr", "apgd-t")


@pytest.fixture(params=BOUNDS, ids=["linf", "l2"])
def bound(request: pytest.FixtureRequest) -> tuple[Norm, float]:
    norm, eps = request.param
    return norm, eps


@pytest.mark.skipif(not {"fab", "square"} <= set(ATTACKS), reason="not all members are here")
class TestStandard:
    def test_members_are_the_published_ones(self) -> None:
        members = AutoAttack(0.4, norm="l2").members
        assert list(members) == ["apgd-ce", "apgd-t", "fab-t", "square"]
        told = {name: member.describe() for name, member in members.items()}
        assert all((one["norm"], one["eps"]) == ("l2", 0.4) for one in told.values())
        assert told["apgd-ce"]["loss"] == "ce"
        assert [told[name]["steps"] for name in ("apgd-ce", "apgd-t", "fab-t")] == [100] * 3
        assert told["apgd-t"]["targets"] == 9
        assert told["square"]["queries"] == 5000

    def test_at_least_as_strong_as_each_member(
        self, bound: tuple[Norm, float], digits: Digits
    ) -> None:
        norm, eps = bound
        data = (digits.model, digits.images, digits.labels)
        attack = AutoAttack(eps, norm=norm, steps=20, queries=200)
        success = attack(*data, generator=generator(0)).success
        for member in attack.members.values():
            alone = member(*data, generator=generator(0)).success
            assert int(success.sum()) >= int(alone.sum()) - 1

    def test_against_torchattacks(self, bound: tuple[Norm, float], digits: Digits) -> None:
        norm, eps = bound
        data = (digits.model, digits.images, digits.labels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torchattacks = pytest.importorskip("torchattacks")
            peer = torchattacks.AutoAttack(
                digits.model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, n_classes=10, seed=0
            )
            square = peer._autoattack.attacks[3]
            square.n_queries = 300
            theirs = peer(digits.images, digits.labels)
        fooled = digits.model(theirs).argmax(1) != digits.labels
        ours = AutoAttack(eps, norm=norm, steps=10, queries=300)(*data, generator=generator(0))
        assert 0.2 < float(fooled.float().mean()) < 0.8
        assert share_agrees(ours.success, fooled)

    @pytest.mark.parametrize("classes", [2, 3])
    def test_few_classes(self, classes: int) -> None:
        few = train_digits(classes, count=20)
        attack = AutoAttack(0.3, steps=10, queries=50)
        result = attack(few.model, few.images, few.labels, generator=generator(0))
        plain = APGD(0.3, steps=10)(few.model, few.images, few.labels, generator=generator(0))
        assert 0 < int(plain.success.sum()) <= int(result.success.sum())


def test_members_go_on_with_what_is_left(
    bound: tuple[Norm, float], digits: Digits, caplog: pytest.LogCaptureFixture
) -> None:
    norm, eps = bound
    attack = AutoAttack(eps, norm=norm, members=APGDS, steps=5)
    labels = digits.labels.clone()
    labels[:3] = (labels[:3] + 1) % 10
    data = (digits.model, digits.images, labels)
    with caplog.at_level(logging.INFO, "jernih"):
        result = attack(*data, generator=generator(0))
    assert [line.split(" fooled")[0] for line in caplog.messages] == [
        f"auto-attack: {name}" for name in APGDS
    ]
    told = attack.contributions(*data, generator=generator(0))
    assert list(told) == ["clean", *APGDS]
    assert told["clean"].tolist() == [True] * 3 + [False] * (len(labels) - 3)
    assert int(told["apgd-ce"].sum()) > 0
    assert torch.equal(torch.stack(list(told.values())).sum(0), result.success.long())
    assert torch.equal(result.images[:3], digits.images[:3])
    # What a member did alone is what the ensemble starts from.
    alone = AutoAttack(eps, norm=norm, members=APGDS[:1], steps=5)(*data, generator=generator(0))
    assert torch.equal(alone.success, told["clean"] | told["apgd-ce"])
    kept = ~(told["apgd-dlr"] | told["apgd-t"])
    assert torch.equal(result.images[kept], alone.images[kept])
    assert bool((result.distances[3:] > 0).all())


def test_as_strong_as_its_members(bound: tuple[Norm, float], digits: Digits) -> None:
    norm, eps = bound
    data = (digits.model, digits.images, digits.labels)
    attack = AutoAttack(eps, norm=norm, members=["apgd-ce", "apgd-t"], steps=20)
    success = attack(*data, generator=generator(0)).success
    for kind in (APGD, APGDT):
        alone = kind(eps, norm=norm, steps=20)(*data, generator=generator(0)).success
        assert int(success.sum()) >= int(alone.sum())


def test_image_does_not_depend_on_which_others_are_fooled(digits: Digits) -> None:
    attack = AutoAttack(0.1, members=APGDS, steps=5)
    first = attack(digits.model, digits.images, digits.labels, generator=generator(0))
    labels = digits.labels.clone()
    labels[::2] = (labels[::2] + 1) % 10  # now fooled from the start
    second = attack(digits.model, digits.images, labels, generator=generator(0))
    apart = (first.images - second.images)[1::2].abs().amax((1, 2, 3))
    assert float((apart > 1e-3).float().mean()) < 0.1  # rounding
    assert torch.equal(first.success[1::2], second.success[1::2])


def test_version_for_random_models(images: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    members = AutoAttack(version="rand").members
    assert list(members) == ["apgd-ce", "apgd-dlr"]
    assert [member.describe()["samples"] for member in members.values()] == [20, 20]
    model = tiny_classifier(outputs=1)
    attack = AutoAttack(1e-4, version="rand", steps=2)
    with caplog.at_level(logging.INFO, "jernih"):
        told = attack.contributions(model, images, model(images).argmax(1))
    assert "no apgd-dlr" in caplog.text
    assert int(told["apgd-dlr"].sum()) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "l1"},
        {"version": "plus"},
        {"members": ["apgd"]},
        {"members": []},
        {"members": ["apgd-t", "apgd-t"]},
        {"steps": 0},
        {"queries": 0},
    ],
)
def test_refuses_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        AutoAttack(0.1, **options)  # type: ignore[arg-type]


def test_telling_contributions_checks_its_arguments(digits: Digits) -> None:
    attack = AutoAttack(0.1, members=["apgd-ce"], steps=2)
    with pytest.raises(InputError, match="labels"):
        attack.contributions(digits.model, digits.images, digits.labels[:3])
    with pytest.raises(InputError, match="evaluation mode"):
        attack.contributions(tiny_classifier().train(), digits.images, digits.labels)


def test_describes_itself() -> None:
    described = AutoAttack(norm="l2", members=["apgd-t"]).describe()
    assert described == {
        "name": "auto-attack", "eps": 0.5, "norm": "l2", "version": "standard",
        "members": ["apgd-t"], "steps": 100, "queries": 5000,
    }  # fmt: skip
