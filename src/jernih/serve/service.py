"""What every route works with: the model, its batches, its limits and its counters."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial

import anyio
import torch
from anyio.to_thread import run_sync
from starlette.requests import Request
from torch import Tensor

from jernih import __version__
from jernih.answer import Answer, Answerer
from jernih.serve.answers import verdict_of
from jernih.serve.batcher import Batcher
from jernih.serve.decode import decode_image
from jernih.serve.errors import Refused, busy, too_late
from jernih.serve.metrics import Metrics
from jernih.serve.settings import ServeSettings
from jernih.validate import InputError

log = logging.getLogger(__name__)

DECODERS = 2
"""Images that are unpacked at once."""


class Service:
    """The model behind the routes.

    Args:
        answerer: who is asked.
        settings: limits and batching.
    """

    def __init__(self, answerer: Answerer, settings: ServeSettings) -> None:
        self.answerer = answerer
        self.settings = settings
        self.metrics = Metrics(lambda: self.batcher.waiting)
        self.batcher = Batcher(
            answerer, settings.batch, settings.wait_ms, settings.queue, self.metrics.batches.observe
        )
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
        self.ready = True

    def close(self) -> None:
        """Finish what was accepted, for so long as the settings say."""
        self.ready = False
        if not self.batcher.close(self.settings.drain_s):
            log.warning("requests were left when the time for them was over")

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
            self._decoders = anyio.CapacityLimiter(DECODERS)
        return await run_sync(partial(self._decoded, content), limiter=self._decoders)

    def _decoded(self, content: bytes) -> Tensor:
        image = decode_image(content, self.settings.max_pixels)
        try:
            return self.answerer.prepared(image)
        except InputError as error:
            raise Refused(422, "invalid", f"The image cannot be used: {error}.") from None

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


async def _all(futures: Sequence[Future[Answer]]) -> list[Answer]:
    return list(await asyncio.gather(*(asyncio.wrap_future(future) for future in futures)))


async def _left(request: Request) -> None:
    """Return when the client has hung up."""
    while not await request.is_disconnected():
        await asyncio.sleep(0.1)
