"""Training of classifiers and purifiers on Lightning: resumable, seeded, the best epoch kept."""

from __future__ import annotations

import csv
import io
import logging
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    ModelCheckpoint,
    RichProgressBar,
)
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from jernih.attacks import Attack
from jernih.classifiers import Classifier
from jernih.classifiers.prepare import channels_last
from jernih.config import Training
from jernih.data.modify import EpochSampler, ImageDataset
from jernih.purifiers import Purifier
from jernih.randomness import derive_seed, generator, seeded
from jernih.storage import write_text
from jernih.validate import InputError

log = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor, Tensor]
_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamax": torch.optim.Adamax,
    "sgd": torch.optim.SGD,
}


@dataclass(frozen=True)
class TrainingData:
    """The two data sets of a training.

    Attributes:
        train: images to learn from; varied by the data set's augmentation.
        val: images to choose the best epoch by.
        draw: how often each training image is drawn (n,), or None for once an epoch.
    """

    train: ImageDataset
    val: ImageDataset
    draw: Tensor | None = None


def fit_classifier(
    classifier: Classifier,
    data: TrainingData,
    settings: Training,
    folder: Path,
    *,
    seed: int = 0,
    class_weights: Tensor | None = None,
    device: str = "cpu",
    show_progress: bool = False,
) -> Path:
    """Train a classifier in place with cross-entropy; the weights of the best epoch stay.

    With two classes and a one-logit network this is binary cross-entropy.

    Args:
        classifier: the classifier to train.
        data: training and validation images.
        settings: how to train.
        folder: receives ``history.csv``, TensorBoard logs and, while it runs, checkpoints from
            which an interrupted training goes on.
        seed: seed of order, augmentation and dropout.
        class_weights: weight of each class in the loss (K,).
        device: ``"cpu"`` or ``"cuda"``.
        show_progress: draw a progress bar.

    Returns:
        the path of the history, a CSV of losses and accuracies per epoch.
    """
    task = _ClassifierTask(classifier, settings, seed, class_weights)
    return _fit(task, data, settings, folder, seed, device, show_progress)


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
    seed: int = 0,
    device: str = "cpu",
    show_progress: bool = False,
) -> Path:
    """Train a purifier in place to restore attacked images; the weights of the best epoch stay.

    Every batch is attacked afresh on the frozen classifier (an oblivious attacker). Each image
    gets one of the epsilons at random, or stays clean.

    Args:
        purifier: the purifier to train.
        classifier: the classifier to attack; stays as it is.
        attack: the attack to train against.
        epsilons: its bounds.
        data: training and validation images.
        settings: how to train.
        folder: as for :func:`fit_classifier`.
        clean_share: share of the images of a batch left clean, in [0, 1).
        seed: seed of order, augmentation, epsilons and latent noise.
        device: ``"cpu"`` or ``"cuda"``.
        show_progress: draw a progress bar.

    Returns:
        the path of the history; its ``val_accuracy`` is that of restored validation images.
    """
    task = _PurifierTask(purifier, classifier, attack, epsilons, settings, seed, clean_share)
    return _fit(task, data, settings, folder, seed, device, show_progress)


class _Task(pl.LightningModule):
    """What both trainings share: the optimiser and the seed of each epoch."""

    def __init__(self, model: nn.Module, settings: Training, seed: int) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.seed = seed

    def configure_optimizers(self) -> torch.optim.Optimizer:
        chosen = _OPTIMIZERS[self.settings.optimizer]
        return chosen(
            self.model.parameters(), lr=self.settings.lr, weight_decay=self.settings.weight_decay
        )

    def on_train_epoch_start(self) -> None:
        # Dropout takes no generator; a seed of its own for each epoch keeps a resumed training
        # equal to an undisturbed one.
        torch.manual_seed(derive_seed(self.seed, "epoch", self.current_epoch))

    def record(self, values: dict[str, Tensor], count: int) -> None:
        self.log_dict(values, batch_size=count, on_step=False, on_epoch=True, prog_bar=True)


class _ClassifierTask(_Task):
    def __init__(
        self,
        classifier: Classifier,
        settings: Training,
        seed: int,
        class_weights: Tensor | None,
    ) -> None:
        super().__init__(classifier, settings, seed)
        self.class_weights = class_weights

    def _step(self, batch: Batch, stage: str) -> Tensor:
        images, labels, _ = batch
        logits = self.model(images)
        weights = None if self.class_weights is None else self.class_weights.to(logits)
        loss = functional.cross_entropy(logits, labels, weight=weights)
        accuracy = (logits.argmax(1) == labels).float().mean()
        self.record({f"{stage}_loss": loss, f"{stage}_accuracy": accuracy}, len(labels))
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "val")


class _PurifierTask(_Task):
    def __init__(
        self,
        purifier: Purifier,
        classifier: Classifier,
        attack: Attack,
        epsilons: Sequence[float],
        settings: Training,
        seed: int,
        clean_share: float,
    ) -> None:
        super().__init__(purifier, settings, seed)
        # In a list, the classifier is no submodule: it is neither trained nor checkpointed.
        self.target = [classifier.frozen()]
        self.attack = attack
        self.epsilons = list(epsilons)
        self.clean_share = clean_share

    def on_fit_start(self) -> None:
        self.target[0].to(self.device)

    def _attacked(self, batch: Batch, choice: Tensor, source: torch.Generator) -> Tensor:
        """Each image attacked with the epsilon of its choice; the last choice is none."""
        images, labels, _ = batch
        made = self.attack.perturb(self.target[0], images, labels, self.epsilons, generator=source)
        return torch.stack([*made, images])[choice, torch.arange(len(images))]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images = batch[0]
        source = generator(self.seed, "purifier", self.current_epoch, batch_idx)
        shares = torch.full((len(self.epsilons),), (1 - self.clean_share) / len(self.epsilons))
        weights = torch.cat([shares, torch.tensor([self.clean_share])])
        choice = torch.multinomial(weights, len(images), True, generator=source)
        attacked = self._attacked(batch, choice, source)
        loss: Tensor = self.model.loss(attacked, images, source)  # type: ignore[operator]
        self.record({"train_loss": loss}, len(images))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images, labels, index = batch
        source = generator(self.seed, "purifier-val", batch_idx)
        attacked = self._attacked(batch, index.cpu() % len(self.epsilons), source)
        restored = self.model(attacked)
        accuracy = (self.target[0](restored).argmax(1) == labels).float().mean()
        loss = functional.mse_loss(restored, images)
        self.record({"val_loss": loss, "val_accuracy": accuracy}, len(images))


class _Bar(RichProgressBar):
    """Lightning's bar without the log's version, which says nothing here."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class _History(Callback):
    """Writes the metrics of each epoch to a CSV, going on where an interrupted training was."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        row: dict[str, Any] = {"epoch": trainer.current_epoch}
        row |= {name: f"{float(v):.6g}" for name, v in sorted(trainer.callback_metrics.items())}
        rows: list[dict[str, Any]] = []
        if self.path.is_file():
            rows = list(csv.DictReader(io.StringIO(self.path.read_text(encoding="utf-8"))))
        rows = [old for old in rows if int(old["epoch"]) < trainer.current_epoch]
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(row), extrasaction="ignore")
        writer.writeheader()
        writer.writerows([*rows, row])
        write_text(self.path, text.getvalue())
        summary = ", ".join(f"{name} {value}" for name, value in row.items() if name != "epoch")
        log.info("epoch %d of %s: %s", trainer.current_epoch + 1, trainer.max_epochs, summary)


def _fit(
    task: _Task,
    data: TrainingData,
    settings: Training,
    folder: Path,
    seed: int,
    device: str,
    show_progress: bool,
) -> Path:
    for name, dataset in (("train", data.train), ("val", data.val)):
        if len(dataset) == 0:
            raise InputError(f"{name} split", "at least one image to train with", "none")
    checkpoints = folder / "checkpoints"
    history = folder / "history.csv"
    last = checkpoints / "last.ckpt"
    if not last.is_file():
        history.unlink(missing_ok=True)
    best = ModelCheckpoint(
        checkpoints, "best", monitor="val_loss", save_last=True, save_on_train_epoch_end=True
    )
    callbacks: list[Callback] = [
        _History(history),
        EarlyStopping("val_loss", patience=settings.patience, check_finite=True),
        best,
    ]
    if show_progress:
        callbacks.append(_Bar(leave=True))
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings(), seeded(seed, "fit"):
        _silence_advice()
        trainer = pl.Trainer(
            accelerator=device,
            devices=1,
            max_epochs=settings.epochs,
            precision=settings.precision,
            callbacks=callbacks,
            logger=TensorBoardLogger(folder, name=None, version="tensorboard"),
            log_every_n_steps=1,
            enable_progress_bar=show_progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            gradient_clip_val=settings.gradient_clip,
        )
        channels_last(task.model).train()
        _run(trainer, task, _loaders(data, settings, seed), last if last.is_file() else None)
        if best.best_model_score is None or not bool(torch.isfinite(best.best_model_score)):
            shutil.rmtree(checkpoints)
            raise InputError("training", "a finite validation loss", "none", "try a smaller lr")
        state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    prefix = "model."
    task.model.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state["state_dict"].items() if k.startswith(prefix)}
    )
    task.model.cpu().eval()
    shutil.rmtree(checkpoints)
    return history


def _run(
    trainer: pl.Trainer,
    task: _Task,
    loaders: tuple[DataLoader[Any], DataLoader[Any]],
    resume: Path | None,
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(task, *loaders, ckpt_path=str(resume) if resume else None, weights_only=True)
    except SystemExit:
        # Lightning turns Ctrl-C into an exit; the caller decides what Ctrl-C means here.
        raise KeyboardInterrupt from None
    finally:
        if handler is not None and sys.is_finalizing() is False:
            signal.signal(signal.SIGINT, handler)


def _loaders(
    data: TrainingData, settings: Training, seed: int
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    # A last batch of one image has no variance for batch norm to divide by.
    ragged = len(data.train) % settings.batch_size == 1 and len(data.train) > 1
    # Loaders draw a number when they start; from a generator of their own, dropout stays the same
    # however often they start.
    return (
        DataLoader(
            data.train,
            settings.batch_size,
            sampler=EpochSampler(len(data.train), seed, data.draw),
            num_workers=settings.workers,
            drop_last=ragged,
            generator=generator(seed, "train loader"),
        ),
        DataLoader(
            data.val,
            settings.batch_size,
            num_workers=settings.workers,
            generator=generator(seed, "val loader"),
        ),
    )


def _silence_advice() -> None:
    """Keep Lightning's advice on settings that were chosen on purpose out of the user's sight."""
    for message in (
        ".*does not have many workers.*",
        ".*GPU available but not used.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*LeafSpec.*is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message=message)
