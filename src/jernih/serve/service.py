"""What every route works with: the model, its batches, its limits and its counters."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future
from functools import partial

import anyio
import torch
from anyio.to_thread import run_sync
from starlette.requests import Request
from torch import Tensor

from jernih import __version__
from jernih.answer import Answer, Answerer
from jernih.data.untrusted import UntrustedImages
from jernih.serve.answers import verdict_of
from jernih.serve.batcher import Batcher
from jernih.serve.decode import decode_image
from jernih.serve.errors import Refused, busy, too_late, too_slow
from jernih.serve.metrics import Metrics
from jernih.serve.settings import ServeSettings
from jernih.serve.workers import ModelProcesses
from jernih.validate import InputError

log = logging.getLogger(__name__)


class Service:
    """The model behind the routes.

    Args:
        answerer: who is asked.
        settings: limits and batching.
        images: who reads images; left out: one within the bounds that the settings give.
        workers: the model in processes of its own; None for the answerer in this process.
    """

    def __init__(
        self,
        answerer: Answerer,
        settings: ServeSettings,
        images: UntrustedImages | None = None,
        workers: ModelProcesses | None = None,
    ) -> None:
        self.answerer = answerer
        self.settings = settings
        self.images = reader_of(settings) if images is None else images
        self.metrics = Metrics(lambda: self.batcher.waiting)
        self.batcher = Batcher(
            answerer if workers is None else workers,
            settings.batch,
            settings.wait_ms,
            settings.queue,
            self.metrics.batches.observe,
            1 if workers is None else workers.count,
        )
        self.workers = workers
        self.ready = False
        self.has_areas = True
        self._inside = 0
        self._decoders: anyio.CapacityLimiter | None = None

    @property
    def version(self) -> str:
        """The version of the software."""
        return __version__

    def warm_up(self) -> None:
        """Ask the model about one image, so that the first client need not wait for that."""
        prepare = self.answerer.defended.prepare
        side = 224 if prepare is None else prepare.size
        grey = torch.full((3, side, side), 0.5)
        try:
            self.answerer([grey], areas=True)
        except InputError:
            self.has_areas = False  # a network without feature maps
            self.answerer([grey])
        if self.workers is not None:
            self.workers.answers(self.answerer.prepared(grey).unsqueeze(0))
        self.images.start()
        self.ready = True

    def close(self) -> None:
        """Finish what was accepted, for so long as the settings say."""
        self.ready = False
        if not self.batcher.close(self.settings.drain_s):
            log.warning("requests were left when the time for them was over")
        self.images.close()
        if self.workers is not None:
            self.workers.close()

    @contextlib.asynccontextmanager
    async def receiving(self) -> AsyncIterator[None]:
        """Time for a request to come in whole.

        Raises:
            Refused: when that is over.
        """
        try:
            async with asyncio.timeout(self.settings.receive_s):
                yield
        except TimeoutError:
            raise too_slow(self.settings.receive_s) from None

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Room for a request, before its body is read: unpacking images costs time, too.

        Raises:
            Refused: when as many are inside as may wait and be worked on at once.
        """
        if self._inside >= self.settings.queue + self.settings.batch:
            raise busy()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def decoded(self, content: bytes) -> Tensor:
        """The prepared image that some bytes encode, unpacked beside the event loop.

        Raises:
            Refused: for what is no image.
        """
        if self._decoders is None:
            self._decoders = anyio.CapacityLimiter(self.settings.decoders)
        prepare = self.answerer.defended.prepare
        read = partial(decode_image, content, self.images, prepare)
        return await run_sync(read, limiter=self._decoders)

    async def answered(
        self, request: Request, images: Sequence[Tensor], *, areas: bool = False
    ) -> list[Answer]:
        """Answers for prepared images, in order.

        Raises:
            Refused: when the service is full or ending, when there is no answer in time, when the
                client has left, and for images that the model does not take.
        """
        if areas and not self.has_areas:
            raise Refused(422, "no_areas", "This model has no feature maps to find areas in.")
        if not images:
            return []
        futures = self.batcher.submit(images, areas)
        waiting = asyncio.ensure_future(_all(futures))
        leaving = asyncio.ensure_future(_left(request))
        try:
            done, _ = await asyncio.wait(
                {waiting, leaving},
                timeout=self.settings.timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if waiting in done:
                answers = waiting.result()
            elif leaving in done:
                raise Refused(499, "left", "The client has left.")
            else:
                raise too_late(self.settings.timeout_s)
        except InputError as error:
            message = f"The model does not take this image: {error}."
            raise Refused(422, "invalid", message) from None
        finally:
            leaving.cancel()
            waiting.cancel()
            for future in futures:
                future.cancel()
        for answer in answers:
            self.metrics.images.labels(verdict_of(answer)).inc()
        return answers


def reader_of(settings: ServeSettings) -> UntrustedImages:
    """Who reads images within the bounds that the settings give."""
    return UntrustedImages(
        settings.max_pixels, settings.decode_s, settings.decode_mib * 2**20, settings.decoders
    )


async def _all(futures: Sequence[Future[Answer]]) -> list[Answer]:
    return list(await asyncio.gather(*(asyncio.wrap_future(future) for future in futures)))


async def _left(request: Request) -> None:
    """Return when the client has hung up."""
    while not await request.is_disconnected():
        await asyncio.sleep(0.1)
