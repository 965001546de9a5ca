"""For TensorBoard: what a purifier in training makes of a few images."""

from __future__ import annotations

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from jernih.train.base import Task

SHOWN = 4
"""Images that are shown after each epoch."""
STRONGER = 10


def show(task: Task, images: Tensor, attacked: Tensor) -> None:
    """Show some validation images, attacked, restored, and what was taken away.

    Args:
        task: the training of a purifier.
        images: the images (N, C, H, W).
        attacked: the same, attacked.
    """
    if not isinstance(task.logger, TensorBoardLogger):
        return
    clean, shown = images[:SHOWN], attacked[:SHOWN]
    restored = task.model(shown)
    taken = (0.5 + STRONGER * (shown - restored)).clamp(0, 1)
    rows = [torch.cat(list(row), 2) for row in (clean, shown, restored, taken)]
    picture = torch.cat(rows, 1).detach().float().cpu()
    title = f"clean, attacked, restored, taken away ×{STRONGER}"
    task.logger.experiment.add_image(title, picture, task.current_epoch)
