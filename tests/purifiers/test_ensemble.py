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
    Purifier,
    find_purifier,
    restore_purifier,
    save_purifier,
)
from jernih.purifiers.ensemble import read_members
from jernih.randomness import generator, seeded
from jernih.validate import InputError
from tests.conftest import tiny_classifier

TWO: tuple[Any, ...] = ({"name": "jpeg", "quality": 40}, {"name": "median", "size": 3})


def unet(seed: int) -> Purifier:
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
        file = save_purifier(unet(seed), tmp_path / f"{seed}.safetensors")
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
    file = save_purifier(unet(0), tmp_path / "member.safetensors")
    purifier = Ensemble([{"name": "unet", "weights": str(file)}, "median"]).eval()
    assert purifier.learns == "nothing"
    assert purifier.describe()["members"][0] == {
        "name": "unet", "widths": [4], "blocks": [1], "shuffle": 1, "condition": False,
        "strength": 1.0, "precision": "float32",
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


def test_members_learn_by_their_own_losses(images: Tensor) -> None:
    """A variational member keeps its divergence, a denoising one its noise."""
    vae = {"name": "skip-vae", "image_size": 32, "widths": (4, 4, 4), "latent": 4, "beta": 50.0}
    both = Ensemble([vae, {"name": "denoising-autoencoder", "widths": (4,)}, "jpeg"])
    attacked = (images + 0.1).clamp(0, 1)
    source = generator("loss")
    members = [part for part in both.parts if isinstance(part, Purifier)]
    own = torch.stack([part.loss(attacked, images, source) for part in members[:2]])
    torch.testing.assert_close(both.loss(attacked, images, generator("loss")), own.mean())
    assert both.trains_on == "attacked"
    assert Ensemble(["denoising-autoencoder", "deep-autoencoder"]).trains_on == "clean"
    steady = Ensemble(TWO)
    torch.testing.assert_close(
        steady.loss(attacked, images), (steady(attacked) - images).square().mean()
    )


def test_members_that_come_trained_stay_as_they_are(images: Tensor, tmp_path: Path) -> None:
    file = save_purifier(unet(0), tmp_path / "member.safetensors")
    purifier = Ensemble(
        [
            {"name": "unet", "widths": (4,), "weights": file},
            {"name": "conv-autoencoder", "widths": (4,)},
            {"name": "pca", "patch": 8, "components": 16, "weights": None},
        ]
    )
    before = {name: value.clone() for name, value in purifier.state_dict().items()}
    optimizer = torch.optim.AdamW(purifier.parameters(), lr=0.01, weight_decay=0.1)
    purifier.loss(images, images).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    changed = {
        int(name.split(".")[1])
        for name, value in purifier.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {1}
    fitted = Ensemble(
        [
            {"name": "pca", "patch": 8, "components": 16},
            {"name": "pca", "patch": 8, "components": 16, "weights": _fitted(images, tmp_path)},
        ]
    )
    kept = fitted.state_dict()["parts.1.basis"].clone()
    fitted.fit([images[:3].square()])
    assert torch.equal(fitted.state_dict()["parts.1.basis"], kept)
    assert not torch.equal(fitted.state_dict()["parts.0.basis"], kept)


def _fitted(images: Tensor, folder: Path) -> Path:
    pca = PURIFIERS.create("pca", patch=8, components=16)
    pca.fit([images])
    return save_purifier(pca, folder / "pca.safetensors")


def test_members_may_answer_in_another_precision(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Median, "restore", lambda self, shown: shown.bfloat16())
    assert Ensemble(TWO, how="random").eval()(images).dtype is torch.float32


def test_a_member_without_weights_has_to_learn() -> None:
    assert Ensemble([{"name": "unet", "weights": None}, "jpeg"]).learns == "by gradient"
    assert [member.learns for member in read_members(["unet", "jpeg", "pca"])] == [
        "by gradient", "nothing", "in closed form",
    ]  # fmt: skip


def test_members_are_checked_before_a_run_begins() -> None:
    for members, message in (
        ("[jpeg, {name: median, sizes: 3}]", "nearest: 'size'"),
        ("[jpeg]", "at least two"),
        ("[pca, unet]", "only one without weights; got 2 that learn"),
    ):
        for place in ("model.purifier", "model.others.x.purifier"):
            with pytest.raises(InputError, match=message):
                load_config(None, [f"{place}={{name: ensemble, members: {members}}}"])
    load_config(
        None,
        ["model.purifier={name: ensemble, members: [pca, unet]}", "model.purifier_weights=x"],
    )
    load_config(None, ["model.purifier={name: ensemble, members: [pca, {name: unet, weights: x}]}"])


@pytest.mark.parametrize(
    ("members", "more", "message"),
    [
        (None, {}, "at least two purifiers; got None"),
        ({"name": "jpeg", "quality": 3}, {}, "at least two purifiers"),
        (["jpeg", 5], {}, "each a name, or a mapping of name and options; got 5"),
        (["jpeg", ["median", "pca"]], {}, "each a name"),
        (["jpeg", {"quality": 3}], {}, "each a name"),
        (["jpeg", {"name": "unet", "weights": "nowhere.safetensors"}], {}, "an existing"),
        (["jpeg", {"name": "median", "weights": "jernih-s-imagenet"}], {}, "member's weights"),
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
