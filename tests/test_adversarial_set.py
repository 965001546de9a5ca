"""The adversarial set gives back what the attack made, and goes on where it was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from jernih.attacks import FGSM, PGD
from jernih.attacks.base import Attack
from jernih.classifiers import Classifier
from jernih.config import Training
from jernih.data.modify import ImageDataset, Prepare
from jernih.purifiers import ConvAutoencoder
from jernih.randomness import seeded
from jernih.train import (
    AdversarialSet,
    AdversarialTraining,
    TrainingData,
    fit_classifier,
    fit_purifier,
    write_adversarial_set,
)
from jernih.validate import InputError
from tests.helpers import Edges, datasets, striped_manifest
from tests.test_train import history

EPSILONS = (0.01, 0.04)


def edges() -> Classifier:
    with seeded(0):
        return Classifier(Edges(), ["a", "b"]).eval()


@pytest.fixture
def plain(tmp_path: Path) -> ImageDataset:
    manifest = striped_manifest(tmp_path / "images", each=16)
    return ImageDataset(manifest.split("train"), Prepare(32))


def pairs(dataset: ImageDataset) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.stack([dataset[i][0] for i in range(len(dataset))]), dataset.labels


def test_fgsm_comes_back_as_it_was(tmp_path: Path, plain: ImageDataset) -> None:
    classifier = edges()
    found = write_adversarial_set(
        tmp_path / "set", classifier, FGSM(), EPSILONS, plain, batch_size=5
    )
    images, labels = pairs(plain)
    for bound, eps in enumerate(EPSILONS):
        wanted = FGSM(eps)(classifier.frozen(), images, labels).images
        made = found.attacked(images, torch.arange(len(plain)), torch.full((len(plain),), bound))
        torch.testing.assert_close(made, wanted, atol=1e-6, rtol=0)
    untouched = found.attacked(images, torch.arange(len(plain)), torch.full((len(plain),), 2))
    assert torch.equal(untouched, images)


def test_positions_and_choices_are_kept_apart(tmp_path: Path, plain: ImageDataset) -> None:
    found = write_adversarial_set(tmp_path / "set", edges(), FGSM(), EPSILONS, plain)
    images, _ = pairs(plain)
    index, choice = torch.tensor([3, 0]), torch.tensor([1, 0])
    made = found.attacked(images[index], index, choice)
    sizes = (made - images[index]).abs().flatten(1).max(1).values
    torch.testing.assert_close(sizes, torch.tensor([0.04, 0.01]))


def test_any_attack_is_kept_to_a_fine_step(tmp_path: Path, plain: ImageDataset) -> None:
    attack = PGD(steps=3, random_start=False, stop_early=False)
    found = write_adversarial_set(tmp_path / "set", edges(), attack, EPSILONS, plain)
    images, labels = pairs(plain)
    wanted = PGD(0.04, steps=3, random_start=False, stop_early=False)(
        edges().frozen(), images, labels
    ).images
    choice = torch.ones(len(plain), dtype=torch.int64)
    made = found.attacked(images, torch.arange(len(plain)), choice)
    assert float((made - wanted).abs().max()) <= 0.04 / 254 + 1e-6


def test_interrupted_and_resumed(
    tmp_path: Path, plain: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = write_adversarial_set(
        tmp_path / "whole", edges(), FGSM(), EPSILONS, plain, batch_size=4
    )
    perturb = Attack.perturb
    sizes: list[int] = []

    def interrupt(self: Attack, model: Any, images: Any, *rest: Any, **options: Any) -> Any:
        sizes.append(len(images))
        if len(sizes) == 3:
            raise KeyboardInterrupt
        return perturb(self, model, images, *rest, **options)

    monkeypatch.setattr(Attack, "perturb", interrupt)
    options: dict[str, Any] = {"batch_size": 4}
    with pytest.raises(KeyboardInterrupt):
        write_adversarial_set(tmp_path / "set", edges(), FGSM(), EPSILONS, plain, **options)
    with pytest.raises(InputError, match="16 images"):
        AdversarialSet(tmp_path / "set")
    found = write_adversarial_set(tmp_path / "set", edges(), FGSM(), EPSILONS, plain, **options)
    assert sum(sizes) == len(plain) + 4
    assert (found._stored == wanted._stored).all()


def test_refusals(tmp_path: Path, plain: ImageDataset) -> None:
    with pytest.raises(InputError, match="bounds above 0"):
        write_adversarial_set(tmp_path / "set", edges(), FGSM(), (0.0,), plain)
    with pytest.raises(InputError, match="a folder with a whole one"):
        AdversarialSet(tmp_path / "nothing")


def test_a_purifier_learns_from_it(
    tmp_path: Path, plain: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = datasets(striped_manifest(tmp_path / "images", each=16))
    classifier = edges()
    prepared = tuple(
        write_adversarial_set(tmp_path / name, classifier, FGSM(), EPSILONS, dataset)
        for name, dataset in (("train", plain), ("val", sets["val"]))
    )
    settings = Training(epochs=5, batch_size=4, lr=0.01)

    def fit(data: TrainingData, epsilons: tuple[float, ...] = EPSILONS) -> Path:
        with seeded(0):
            purifier = ConvAutoencoder(widths=(8,))
        return fit_purifier(
            purifier, classifier, FGSM(), epsilons, data, settings, tmp_path / "run",
            prepared=(prepared[0], prepared[1]),
        )  # fmt: skip

    with pytest.raises(InputError, match=r"data\.train"):
        fit(TrainingData(sets["train"], sets["val"]))
    with pytest.raises(InputError, match="prepared train"):
        fit(TrainingData(plain, sets["val"]), (0.02,))

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("nothing is attacked any more")

    monkeypatch.setattr(Attack, "perturb", refuse)
    rows = history(fit(TrainingData(plain, sets["val"])))
    assert rows[-1]["val_loss"] < 0.7 * rows[0]["val_loss"]


@pytest.mark.parametrize("attack", [FGSM(0.05), PGD(0.05, steps=3)])
def test_adversarial_training_attacks_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: Attack
) -> None:
    sets = datasets(striped_manifest(tmp_path / "images", each=16))
    perturb = Attack.perturb
    sizes: list[int] = []
    modes: list[bool] = []

    def noting(self: Attack, model: Any, images: Any, *rest: Any, **options: Any) -> Any:
        sizes.append(len(images))
        modes.append(model.training)
        return perturb(self, model, images, *rest, **options)

    monkeypatch.setattr(Attack, "perturb", noting)
    classifier = edges()
    rows = history(
        fit_classifier(
            classifier,
            TrainingData(sets["train"], sets["val"]),
            Training(epochs=4, batch_size=8, lr=0.05),
            tmp_path / "run",
            adversarial=AdversarialTraining(attack, share=0.75),
        )
    )
    assert set(sizes) == {6}
    assert not any(modes)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert all(parameter.requires_grad for parameter in classifier.parameters())


def test_adversarial_training_makes_robust(tmp_path: Path) -> None:
    sets = datasets(striped_manifest(tmp_path / "images", each=16))
    data = TrainingData(sets["train"], sets["val"])
    images, labels = pairs(sets["val"])
    settings = Training(epochs=8, batch_size=8, lr=0.05)
    right = {}
    for name, mix in (("plain", None), ("robust", AdversarialTraining(FGSM(0.2), share=1.0))):
        classifier = edges()
        fit_classifier(classifier, data, settings, tmp_path / name, adversarial=mix)
        logits = classifier(FGSM(0.2)(classifier, images, labels).images).detach()
        right[name] = float(torch.nn.functional.cross_entropy(logits, labels))
    assert right["robust"] < right["plain"]
