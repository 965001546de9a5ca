"""Training learns, keeps the best epoch, and goes on where it was interrupted."""

from __future__ import annotations

import contextlib
import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jernih.attacks import FGSM
from jernih.classifiers import Classifier
from jernih.config import Training
from jernih.purifiers import ConvAutoencoder
from jernih.randomness import seeded
from jernih.train import TrainingData, fit_classifier, fit_purifier
from jernih.train import classifier as classifier_training
from jernih.validate import InputError
from tests.conftest import TinyNet
from tests.helpers import Edges, datasets, striped_manifest


def edges() -> Classifier:
    with seeded(0):
        return Classifier(Edges(), ["a", "b"]).eval()


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    sets = datasets(striped_manifest(tmp_path / "images"))
    return TrainingData(sets["train"], sets["val"])


def settings(epochs: int, **others: Any) -> Training:
    return Training(**{"epochs": epochs, "batch_size": 4, "lr": 0.05, **others})


def history(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def test_classifier_learns(tmp_path: Path, data: TrainingData) -> None:
    classifier = edges()
    state = torch.get_rng_state()
    rows = history(fit_classifier(classifier, data, settings(6), tmp_path / "run"))
    assert torch.equal(state, torch.get_rng_state())
    assert [row["epoch"] for row in rows] == list(range(6))
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert max(row["val_accuracy"] for row in rows) == 1.0
    assert not classifier.training
    assert list((tmp_path / "run/tensorboard").glob("events*"))
    assert not (tmp_path / "run/checkpoints").exists()


def test_the_best_epoch_stays(tmp_path: Path, data: TrainingData) -> None:
    classifier = edges()
    rows = history(
        fit_classifier(classifier, data, settings(5, lr=40.0, optimizer="sgd"), tmp_path / "run")
    )
    images = torch.stack([data.val[i][0] for i in range(len(data.val))])
    loss = nn.functional.cross_entropy(classifier(images), data.val.labels)
    best = min(row["val_loss"] for row in rows)
    assert float(loss.detach()) == pytest.approx(best, rel=1e-3)
    assert rows[-1]["val_loss"] > best


def test_same_seed_same_weights(tmp_path: Path, data: TrainingData) -> None:
    first, second, other = edges(), edges(), edges()
    fit_classifier(first, data, settings(2), tmp_path / "1", seed=1)
    fit_classifier(second, data, settings(2), tmp_path / "2", seed=1)
    fit_classifier(other, data, settings(2), tmp_path / "3", seed=2)
    assert torch.equal(first.network.head.weight, second.network.head.weight)  # type: ignore[union-attr, arg-type]
    assert not torch.equal(first.network.head.weight, other.network.head.weight)  # type: ignore[union-attr, arg-type]


def test_running_average_of_the_weights(tmp_path: Path, data: TrainingData) -> None:
    """Short memory gives the last weights, long memory those of the first step."""

    def trained(name: str, epochs: int, **others: Any) -> Tensor:
        model = edges()
        one = settings(epochs, lr=1e-3, optimizer="sgd", **others)
        fit_classifier(model, data, one, tmp_path / name, seed=1)
        return model.network.head.weight.detach()  # type: ignore[union-attr, operator]

    start = edges().network.head.weight.detach()  # type: ignore[union-attr, operator]
    plain, short, long = (
        trained("plain", 2),
        trained("short", 2, ema=1e-6),
        trained("long", 2, ema=1 - 1e-6),
    )
    way = (plain - start).norm()
    assert float((short - plain).norm()) < 1e-3 * way
    assert 0 < float((long - start).norm()) < 0.5 * way


@pytest.mark.parametrize("ema", [None, 0.7])
@pytest.mark.parametrize("moment", ["training", "saving"])
def test_interrupted_training_goes_on_to_the_same_end(
    tmp_path: Path,
    data: TrainingData,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    ema: float | None,
) -> None:
    undisturbed, disturbed = edges(), edges()
    four = settings(4, ema=ema)
    wanted = fit_classifier(undisturbed, data, four, tmp_path / "whole", seed=1)
    if moment == "training":
        step = classifier_training._ClassifierTask.training_step

        def interrupt(task: Any, batch: Any, batch_idx: int) -> Tensor:
            if task.current_epoch == 2 and batch_idx == 1:
                raise KeyboardInterrupt
            return step(task, batch, batch_idx)

        monkeypatch.setattr(classifier_training._ClassifierTask, "training_step", interrupt)
    else:

        def refuse(path: Path) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(KeyboardInterrupt):
        fit_classifier(disturbed, data, four, tmp_path / "run", seed=1)
    monkeypatch.undo()
    again = edges()
    found = fit_classifier(again, data, four, tmp_path / "run", seed=1)
    assert history(found) == history(wanted)
    for a, b in zip(undisturbed.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_no_epoch_is_done_twice(
    tmp_path: Path, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs: list[int] = []
    step = classifier_training._ClassifierTask.training_step

    def noting(task: Any, batch: Any, batch_idx: int) -> Tensor:
        epochs.append(task.current_epoch)
        if len(epochs) == 9:  # the first step of the fifth epoch
            raise KeyboardInterrupt
        return step(task, batch, batch_idx)

    monkeypatch.setattr(classifier_training._ClassifierTask, "training_step", noting)
    worsening = settings(6, lr=40.0, optimizer="sgd")  # the best epoch is not the last
    for _ in range(2):
        with contextlib.suppress(KeyboardInterrupt):
            fit_classifier(edges(), data, worsening, tmp_path / "run")
    assert [epochs.count(epoch) for epoch in range(6)] == [2, 2, 2, 2, 3, 2]


def test_class_weights_count(tmp_path: Path, data: TrainingData) -> None:
    biased = edges()
    weights = torch.tensor([1.0, 0.0])
    fit_classifier(biased, data, settings(4), tmp_path / "run", class_weights=weights)
    images = torch.stack([data.val[i][0] for i in range(len(data.val))])
    assert bool((biased(images).argmax(1) == 0).all())


def test_purifier_learns_and_leaves_the_classifier(tmp_path: Path, data: TrainingData) -> None:
    classifier = edges()
    fit_classifier(classifier, data, settings(4), tmp_path / "classifier")
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    with seeded(0):
        purifier = ConvAutoencoder(widths=(8,))
    rows = history(
        fit_purifier(
            purifier, classifier, FGSM(), [0.05, 0.1], data, settings(6, lr=0.01), tmp_path / "run"
        )
    )
    assert rows[-1]["val_loss"] < 0.7 * rows[0]["val_loss"]
    assert 0 <= rows[-1]["val_accuracy"] <= 1
    assert all(torch.equal(v, before[k]) for k, v in classifier.state_dict().items())
    assert not purifier.training


def test_early_stopping(tmp_path: Path, data: TrainingData) -> None:
    frozen = settings(50, lr=1e-12, patience=2)
    rows = history(fit_classifier(edges(), data, frozen, tmp_path / "run"))
    assert len(rows) < 10


def test_a_single_left_over_image_does_no_harm(tmp_path: Path, data: TrainingData) -> None:
    with seeded(0):
        classifier = Classifier(TinyNet(2), ["a", "b"])
    odd = settings(1, batch_size=7)  # 8 images: the second batch would hold one
    assert len(history(fit_classifier(classifier, data, odd, tmp_path / "run"))) == 1


def test_no_images_and_no_finite_loss(tmp_path: Path, data: TrainingData) -> None:
    empty = datasets(data.val.manifest)["train"]
    with pytest.raises(InputError, match="train split: expected at least one image"):
        fit_classifier(edges(), TrainingData(empty, data.val), settings(1), tmp_path / "run")
    broken = edges()
    nn.init.constant_(broken.network.head.weight, float("nan"))  # type: ignore[union-attr, arg-type]
    with pytest.raises(InputError, match="finite validation loss"):
        fit_classifier(broken, data, settings(2), tmp_path / "nan")
