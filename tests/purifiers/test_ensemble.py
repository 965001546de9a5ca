"""Several purifiers as one: their mean, or one of them at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jernih.adaptive import Expectation, check_gradients
from jernih.attacks import PGD
from jernih.config import load_config
from jernih.purifiers import (
    JPEG,
    PURIFIERS,
    Ensemble,
    Median,
    find_purifier,
    restore_purifier,
    save_purifier,
)
from jernih.randomness import generator, seeded
from jernih.validate import InputError
from tests.conftest import tiny_classifier

TWO: tuple[Any, ...] = ({"name": "jpeg", "quality": 40}, {"name": "median", "size": 3})


def unet(seed: int) -> nn.Module:
    with seeded("member", seed):
        made = PURIFIERS.create("unet", widths=(4,), blocks=(1,))
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.1)
    return made.eval()


@torch.no_grad()
def test_the_mean_of_its_members(images: Tensor) -> None:
    found = Ensemble(TWO).eval()(images)
    torch.testing.assert_close(found, (JPEG(40)(images) + Median(3)(images)) / 2)


@torch.no_grad()
def test_each_image_from_one_member_as_often_as_from_another(images: Tensor) -> None:
    many = images[:1].expand(600, -1, -1, -1)
    with seeded("draws"):
        found = Ensemble(TWO, how="random").eval()(many)
    ways = torch.stack([JPEG(40)(images[:1])[0], Median(3)(images[:1])[0]])
    same = (found[:, None] == ways[None]).flatten(2).all(2)
    assert bool((same.sum(1) == 1).all())
    assert 250 < int(same[:, 0].sum()) < 350  # 4 standard deviations


@torch.no_grad()
def test_draws_follow_the_seed(images: Tensor) -> None:
    purifier = Ensemble(TWO, how="random").eval()
    found = []
    for seed in (1, 1, 2, 3, 4):
        with seeded("draws", seed):
            found.append(purifier(images))
    assert torch.equal(found[0], found[1])
    assert not all(torch.equal(found[0], other) for other in found[2:])


def test_expectation_finds_what_single_draws_do_not(images: Tensor, tmp_path: Path) -> None:
    """An attacker who climbs the mean over draws fools more than one who climbs one draw."""
    members = []
    for seed in range(4):
        file = save_purifier(unet(seed), tmp_path / f"{seed}.safetensors")  # type: ignore[arg-type]
        members.append({"name": "unet", "weights": str(file)})
    purifier = Ensemble(members, how="random").eval()
    with seeded("plane"):
        plane = nn.Linear(3 * 32 * 32, 2)
    with torch.no_grad():
        plane.bias.copy_(-0.5 * plane.weight.sum(1))
    model = nn.Sequential(purifier, nn.Flatten(), plane).eval().requires_grad_(False)
    many = torch.rand(48, 3, 32, 32, generator=generator("many"))
    with torch.no_grad(), seeded("labels"):
        labels = Expectation(model, samples=16)(many).argmax(1)

    def right(attacked: Tensor) -> float:
        with torch.no_grad():
            answers = []
            for draw in range(8):
                with seeded("asked", draw):
                    answers.append(model(attacked).argmax(1) == labels)
        return float(torch.stack(answers).float().mean())

    attack = PGD(0.004, steps=6)
    with seeded("one draw"):
        one = attack.perturb(model, many, labels, [0.004], generator=generator(0))[0]
    mean = Expectation(model, samples=8, generator=generator(1))
    climbed = attack.perturb(mean, many, labels, [0.004], generator=generator(0))[0]
    assert right(climbed) < right(one) <= right(many)


def test_is_noticed_to_be_random(images: Tensor) -> None:
    random = nn.Sequential(Ensemble(TWO, how="random"), tiny_classifier()).eval()
    mean = nn.Sequential(Ensemble(TWO), tiny_classifier()).eval()
    labels = torch.zeros(len(images), dtype=torch.int64)
    assert check_gradients(random, images, labels).random
    assert not check_gradients(mean, images, labels).random


def test_members_come_trained_and_need_their_files_no_more(images: Tensor, tmp_path: Path) -> None:
    file = save_purifier(unet(0), tmp_path / "member.safetensors")  # type: ignore[arg-type]
    purifier = Ensemble([{"name": "unet", "weights": str(file)}, "median"]).eval()
    assert purifier.learns == "nothing"
    assert purifier.describe()["members"][0] == {
        "name": "unet", "widths": [4], "blocks": [1], "shuffle": 1, "condition": False,
    }  # fmt: skip
    saved = save_purifier(purifier, tmp_path / "both.safetensors")
    file.unlink()
    again = restore_purifier(saved)
    assert torch.equal(again(images), purifier(images))
    expected = (unet(0)(images) + Median(3)(images)) / 2
    torch.testing.assert_close(again(images), expected)


def test_shipped_members_in_a_config(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "model:\n  purifier:\n    name: ensemble\n    how: average\n    members:\n"
        "      - {name: jernih-s, weights: jernih-s-imagenet}\n      - median\n",
        encoding="utf-8",
    )
    unit = load_config(file).model.purifier
    purifier = PURIFIERS.create(unit.name, **unit.options)
    assert purifier.learns == "nothing"
    assert sum(p.numel() for p in purifier.parameters()) > 400_000


def test_untrained_members_learn(images: Tensor) -> None:
    assert Ensemble(["conv-autoencoder", "jpeg"]).learns == "by gradient"
    fitted = Ensemble([{"name": "pca", "patch": 8, "components": 16}, "jpeg"])
    assert fitted.learns == "in closed form"
    fitted.fit([images])
    assert fitted.eval()(images).shape == images.shape
    two = Ensemble(["pca", "pca"])
    with pytest.raises(InputError, match="one that learns in closed form; got 2"):
        two.fit([images])
    assert find_purifier(name="ensemble", options={"members": TWO}).learns == "nothing"


def test_gradients_reach_members_and_images(images: Tensor) -> None:
    purifier = Ensemble([{"name": "unet", "widths": (4,), "blocks": (1,)}, "jpeg"])
    shown = images.clone().requires_grad_(True)
    purifier(shown).square().sum().backward()
    assert shown.grad is not None
    assert float(shown.grad.abs().sum()) > 0
    assert any(p.grad is not None and bool(p.grad.any()) for p in purifier.parameters())


@pytest.mark.parametrize(
    ("members", "more", "message"),
    [
        (["jpeg"], {}, "at least two purifiers"),
        ("jpeg", {}, "at least two purifiers"),
        (["jpeg", {"name": "ensemble", "members": TWO}], {}, "other than ensembles"),
        (["jpeg", "medain"], {}, "nearest: 'median'"),
        (["jpeg", {"name": "median", "sizes": 3}], {}, "nearest: 'size'"),
        (["jpeg", {"name": "unet", "weights": "jernih-s-imagenet"}], {}, "member's weights"),
        (TWO, {"how": "mean"}, "how: expected one of 'average', 'random'"),
    ],
)
def test_refusals(members: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Ensemble(members, **more)
