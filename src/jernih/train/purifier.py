"""Training of purifiers on images attacked through a frozen classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from jernih.attacks import Attack
from jernih.classifiers import Classifier
from jernih.config import Training
from jernih.purifiers import Purifier
from jernih.randomness import generator
from jernih.train.adversarial_set import AdversarialSet
from jernih.train.base import Batch, Task, TrainingData, fit
from jernih.validate import InputError


def fit_purifier(
    purifier: Purifier,
    classifier: Classifier,
    attack: Attack,
    epsilons: Sequence[float],
    data: TrainingData,
    settings: Training,
    folder: Path,
    *,
    clean_share: float = 0.25,
    prepared: tuple[AdversarialSet, AdversarialSet] | None = None,
    seed: int = 0,
    device: str = "cpu",
    show_progress: bool = False,
) -> Path:
    """Train a purifier in place to restore attacked images; the weights of the best epoch stay.

    Every batch is attacked afresh on the frozen classifier (an oblivious attacker), unless the
    attacked images are ``prepared`` or the purifier trains on clean images alone. Each image gets
    one of the epsilons at random, or stays clean.

    Args:
        purifier: the purifier to train.
        classifier: the classifier to attack; stays as it is.
        attack: the attack to train against.
        epsilons: its bounds.
        data: training and validation images; not varied when the attacked ones are prepared.
        settings: how to train.
        folder: as for :func:`fit_classifier`.
        clean_share: share of the images of a batch left clean, in [0, 1).
        prepared: attacked images of the training and of the validation images.
        seed: seed of order, augmentation, epsilons and latent noise.
        device: ``"cpu"`` or ``"cuda"``.
        show_progress: draw a progress bar.

    Returns:
        the path of the history; its ``val_accuracy`` is that of restored validation images.

    Raises:
        InputError: for prepared images of other bounds or another number of images, and for
            images that are varied beside prepared ones.
    """
    if prepared is not None:
        for name, dataset, attacked in zip(
            ("train", "val"), (data.train, data.val), prepared, strict=True
        ):
            if attacked.epsilons != tuple(epsilons) or len(attacked) != len(dataset):
                raise InputError(
                    f"prepared {name}", "the bounds and images of this training", "others"
                )
        if data.train.augment is not None:
            raise InputError("data.train", "images as they are beside prepared ones", "varied ones")
    task = _PurifierTask(
        purifier, classifier, attack, epsilons, settings, seed, clean_share, prepared
    )
    return fit(task, data, settings, folder, seed, device, show_progress)


class _PurifierTask(Task):
    def __init__(
        self,
        purifier: Purifier,
        classifier: Classifier,
        attack: Attack,
        epsilons: Sequence[float],
        settings: Training,
        seed: int,
        clean_share: float,
        prepared: tuple[AdversarialSet, AdversarialSet] | None,
    ) -> None:
        super().__init__(purifier, settings, seed)
        # In a list, the classifier is no submodule: it is neither trained nor checkpointed.
        self.target = [classifier.frozen()]
        self.attack = attack
        self.epsilons = list(epsilons)
        self.clean_share = clean_share
        self.trains_on = purifier.trains_on
        self.prepared = prepared

    def on_fit_start(self) -> None:
        self.target[0].to(self.device)

    def _attacked(
        self,
        batch: Batch,
        choice: Tensor,
        source: torch.Generator,
        prepared: AdversarialSet | None,
    ) -> Tensor:
        """Each image attacked with the epsilon of its choice; the last choice is none."""
        images, labels, index = batch
        if prepared is not None:
            return prepared.attacked(images, index, choice)
        made = self.attack.perturb(self.target[0], images, labels, self.epsilons, generator=source)
        return torch.stack([*made, images])[choice, torch.arange(len(images))]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images = batch[0]
        source = generator(self.seed, "purifier", self.current_epoch, batch_idx)
        attacked = images
        if self.trains_on == "attacked":
            shares = torch.full((len(self.epsilons),), (1 - self.clean_share) / len(self.epsilons))
            weights = torch.cat([shares, torch.tensor([self.clean_share])])
            choice = torch.multinomial(weights, len(images), True, generator=source)
            attacked = self._attacked(
                batch, choice, source, self.prepared[0] if self.prepared else None
            )
        loss: Tensor = self.model.loss(attacked, images, source)  # type: ignore[operator]
        self.record({"train_loss": loss}, len(images))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images, labels, index = batch
        source = generator(self.seed, "purifier-val", batch_idx)
        choice = index.cpu() % len(self.epsilons)
        attacked = self._attacked(
            batch, choice, source, self.prepared[1] if self.prepared else None
        )
        restored = self.model(attacked)
        accuracy = (self.target[0](restored).argmax(1) == labels).float().mean()
        loss = functional.mse_loss(restored, images)
        self.record({"val_loss": loss, "val_accuracy": accuracy}, len(images))
