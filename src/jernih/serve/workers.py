"""The model in processes of its own: when one dies, another takes over its images."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jernih.answer import Answer, Answerer
from jernih.defended import Defended
from jernih.processes import Processes
from jernih.validate import check_number

_NEEDED = ("jernih.answer", "jernih.hub", "jernih.pipeline")
_TRIES = 3
_model: Answerer | None = None


class ModelProcesses:
    """Asks copies of a defended model that live in processes of their own.

    A batch whose process is killed is asked again of another, so that nobody who was accepted goes
    without an answer; a batch over which the model itself dies is not.

    Args:
        load: makes the model in each process; it has to pickle, such as
            ``functools.partial(find_defended, "model")``.
        count: processes.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
    """

    def __init__(self, load: Callable[[], Defended], count: int, device: str = "auto") -> None:
        self.count = int(check_number("workers", count, 1, 256))
        threads = max(1, (os.cpu_count() or 1) // self.count)
        self._processes = Processes(
            self.count, _load, (load, device, threads), _NEEDED, tries=_TRIES
        )

    def answers(self, batch: Tensor, *, areas: bool = False) -> list[Answer]:
        """Answer for prepared images (N, 3, H, W), as :meth:`jernih.answer.Answerer.answers`.

        Raises:
            ProcessDied: when the model dies over the batch.
        """
        told: bytes = self._processes.do(_answer, batch.numpy(), areas)
        answers: list[Answer] = pickle.loads(told)  # noqa: S301 - from a process of our own
        return answers

    def close(self) -> None:
        """End the processes."""
        self._processes.close()


def _load(load: Callable[[], Defended], device: str, threads: int) -> None:
    global _model
    torch.set_num_threads(threads)
    _model = Answerer(load(), device)


def _answer(batch: NDArray[np.float32], areas: bool) -> bytes:
    if _model is None:
        raise RuntimeError("no model was loaded")
    # As bytes: tensors would be shared with this process, which may die before they are read.
    return pickle.dumps(_model.answers(torch.from_numpy(batch), areas=areas))
