"""What all trainings share on Lightning: resumable, seeded, the best epoch kept."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    RichProgressBar,
)
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from jernih.classifiers.prepare import channels_last
from jernih.config import Training
from jernih.data.modify import EpochSampler, ImageDataset
from jernih.randomness import derive_seed, generator, seeded
from jernih.storage import write_text
from jernih.validate import InputError
from jernih.world import World, current_world

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


class Task(pl.LightningModule):
    """What both trainings share: the optimiser and the seed of each epoch."""

    def __init__(self, model: nn.Module, settings: Training, seed: int) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.seed = seed
        rank = current_world().rank
        # The first process draws what one alone would.
        self.stream: tuple[str | int, ...] = ("process", rank) if rank else ()

    def configure_optimizers(self) -> Any:
        """Make the optimiser that the settings name, with its schedule."""
        chosen = _OPTIMIZERS[self.settings.optimizer](
            self.parameters(), lr=self.settings.lr, weight_decay=self.settings.weight_decay
        )
        if self.settings.schedule == "constant":
            return chosen
        steps = int(self.trainer.estimated_stepping_batches)
        # From the full rate to a hundredth of it, after a rise over the first fiftieth of the way.
        rise = max(1, steps // 50)
        rates = torch.optim.lr_scheduler.LambdaLR(
            chosen,
            lambda step: (
                min(1.0, (step + 1) / rise)
                * (0.505 + 0.495 * math.cos(math.pi * min(1.0, step / steps)))
            ),
        )
        return {"optimizer": chosen, "lr_scheduler": {"scheduler": rates, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Seed the epoch."""
        # Dropout takes no generator; a seed of its own for each epoch keeps a resumed training
        # equal to an undisturbed one.
        torch.manual_seed(derive_seed(self.seed, "epoch", self.current_epoch, *self.stream))

    def record(self, values: dict[str, Tensor], count: int) -> None:
        """Log means over ``count`` images for the epoch's row of the history."""
        self.log_dict(
            values,
            batch_size=count,
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            sync_dist=current_world().size > 1,
        )


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


def fit(
    task: Task,
    data: TrainingData,
    settings: Training,
    folder: Path,
    seed: int,
    device: str,
    show_progress: bool,
) -> Path:
    """Run a training, or go on with an interrupted one; returns the path of its history."""
    for name, dataset in (("train", data.train), ("val", data.val)):
        if len(dataset) == 0:
            raise InputError(f"{name} split", "at least one image to train with", "none")
    world = current_world()
    if settings.batch_size % world.size:
        raise InputError("batch_size", f"a multiple of {world.size} processes", settings.batch_size)
    checkpoints = folder / "checkpoints"
    history = folder / "history.csv"
    last = checkpoints / "last.ckpt"
    resumed = world.told(last.is_file())
    if not resumed and world.leads:
        history.unlink(missing_ok=True)
    best = ModelCheckpoint(checkpoints, "best", monitor="val_loss", save_on_train_epoch_end=True)
    # `save_last` would write only when the best one changes, and lose the epochs since then.
    latest = ModelCheckpoint(
        checkpoints, "last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    callbacks: list[Callback] = [
        *([_History(history)] if world.leads else []),
        EarlyStopping("val_loss", patience=settings.patience, check_finite=True),
        best,
        latest,
    ]
    if settings.ema is not None:
        callbacks.append(EMAWeightAveraging(decay=settings.ema))
    show_progress = show_progress and world.leads
    if show_progress:
        callbacks.append(_Bar(leave=True))
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings(), seeded(seed, "fit"):
        _silence_advice()
        trainer = pl.Trainer(
            accelerator=device,
            **_processes(world),
            max_epochs=settings.epochs,
            precision=settings.precision,
            callbacks=callbacks,
            logger=TensorBoardLogger(folder, name=None, version="tensorboard"),
            log_every_n_steps=1,
            enable_progress_bar=show_progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            gradient_clip_val=settings.gradient_clip,
            use_distributed_sampler=False,  # ours knows of the processes
        )
        channels_last(task.model).train()
        _run(trainer, task, _loaders(data, settings, seed), last if resumed else None)
        if best.best_model_score is None or not bool(torch.isfinite(best.best_model_score)):
            world.meet()
            if world.leads:
                shutil.rmtree(checkpoints)
            raise InputError("training", "a finite validation loss", "none", "try a smaller lr")
        state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    prefix = "model."
    task.model.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state["state_dict"].items() if k.startswith(prefix)}
    )
    task.model.cpu().eval()
    world.meet()
    if world.leads:
        shutil.rmtree(checkpoints)
    return history


def _processes(world: World) -> dict[str, Any]:
    """What Lightning is to know of the processes that torchrun has started."""
    if world.size == 1:
        return {"devices": 1}
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    return {"devices": here, "num_nodes": world.size // here, "strategy": "ddp"}


def _run(
    trainer: pl.Trainer,
    task: Task,
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
    world = current_world()
    sampler = EpochSampler(len(data.train), seed, data.draw, world.rank, world.size)
    size = settings.batch_size // world.size
    # A last batch of one image has no variance for batch norm to divide by.
    ragged = len(sampler) % size == 1 and len(sampler) > 1
    # Loaders draw a number when they start; from a generator of their own, dropout stays the same
    # however often they start.
    return (
        DataLoader(
            data.train,
            size,
            sampler=sampler,
            num_workers=settings.workers,
            drop_last=ragged,
            generator=generator(seed, "train loader"),
        ),
        # Every process looks at all validation images: none is counted twice, and all agree on
        # which epoch is the best.
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
