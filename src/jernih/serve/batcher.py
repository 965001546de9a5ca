"""Images of many requests, answered together."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from jernih.answer import Answer, Answerer
from jernih.serve.errors import busy, closing
from jernih.serve.workers import ModelProcesses

log = logging.getLogger(__name__)


@dataclass
class _Job:
    image: Tensor
    areas: bool
    future: Future[Answer] = field(default_factory=Future)


class Batcher:
    """Collects prepared images and asks the model about several at once.

    The first image of a batch waits a few milliseconds for others. What a client no longer waits
    for is left out before it costs anything.

    Args:
        answerer: who is asked.
        batch: most images at once.
        wait_ms: how long the first one waits, in milliseconds.
        room: most images that wait.
        heard: told the number of images of each batch.
        threads: batches that are asked at once.
    """

    def __init__(
        self,
        answerer: Answerer | ModelProcesses,
        batch: int,
        wait_ms: float,
        room: int,
        heard: Callable[[int], None] | None = None,
        threads: int = 1,
    ) -> None:
        self.answerer = answerer
        self.batch = batch
        self.wait = wait_ms / 1000
        self.room = room
        self.heard = heard
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._gate = threading.Lock()
        self._waiting = 0
        self._open = True
        self._gathering = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, name="jernih-model", daemon=True)
            for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Images that wait or are being worked on."""
        return self._waiting

    def submit(self, images: Sequence[Tensor], areas: bool = False) -> list[Future[Answer]]:
        """Queue prepared images (3, H, W), all of them or none.

        Raises:
            Refused: when there is no room for them, or the service is ending.
        """
        jobs = [_Job(image, areas) for image in images]
        with self._gate:
            if not self._open:
                raise closing()
            if self._waiting + len(jobs) > self.room:
                raise busy()
            self._waiting += len(jobs)
            for job in jobs:
                self._jobs.put(job)
        return [job.future for job in jobs]

    def close(self, seconds: float) -> bool:
        """Take nothing more, and finish what was taken, for so long; whether it was finished."""
        with self._gate:
            if self._open:
                self._open = False
                self._jobs.put(None)
        limit = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, limit - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        ended = False
        while not ended:
            with self._gathering:  # one batch is gathered at a time, so that each is full
                job = self._jobs.get()
                if job is None:
                    self._jobs.put(None)  # for the other threads
                    return
                jobs, ended = self._gathered(job)
                if ended:
                    self._jobs.put(None)
            wanted = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            groups: dict[tuple[tuple[int, ...], bool], list[_Job]] = {}
            for each in wanted:
                groups.setdefault((tuple(each.image.shape), each.areas), []).append(each)
            for (_, areas), group in groups.items():
                self._answer(group, areas)
            with self._gate:
                self._waiting -= len(jobs)

    def _gathered(self, first: _Job) -> tuple[list[_Job], bool]:
        """A job and those that come in time, and whether the end came."""
        jobs = [first]
        limit = time.monotonic() + self.wait
        while len(jobs) < self.batch:
            try:
                job = self._jobs.get(timeout=max(0.0, limit - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                return jobs, True
            jobs.append(job)
        return jobs, False

    def _answer(self, jobs: list[_Job], areas: bool) -> None:
        try:
            images = torch.stack([job.image for job in jobs])
            answers = self.answerer.answers(images, areas=areas)
        except Exception as error:  # whatever it is, somebody waits for it
            for job in jobs:
                job.future.set_exception(error)
            return
        for job, answer in zip(jobs, answers, strict=True):
            job.future.set_result(answer)
        if self.heard is not None:
            self.heard(len(jobs))
