"""What stands before every route: size, token, counters, log, and errors in words."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jernih.serve.errors import Refused, too_large
from jernih.serve.metrics import Metrics
from jernih.traces import trace_of

log = logging.getLogger("jernih.serve")

OPEN = ("/health", "/metrics", "/v2/health/live", "/v2/health/ready")
"""Paths that need no token: they tell nothing of images."""
LINGER_S = 1.0
"""How long the rest of a refused request is waited for, in seconds."""
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """ASGI middleware around the whole application.

    It refuses bodies that are too large while they come in, and requests without the token; gives
    each request an id; counts and logs it, without anything of its content; and turns whatever
    goes wrong into one sentence. Outside the routes listed nothing is read into memory.

    Args:
        app: the application.
        metrics: the counters.
        max_bytes: largest body.
        token: what clients have to show as a bearer token; None for nothing.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, max_bytes: int, token: str | None) -> None:
        self.app = app
        self.metrics = metrics
        self.max_bytes = max_bytes
        self.token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.monotonic()
        request = uuid.uuid4().hex[:16]
        state = {"status": 0, "read": 0, "whole": 0}

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] >= 400:
                    await self._finish_reading(receive, state)
                state["status"] = message["status"]
                kept = [*message.get("headers", []), *HEADERS, (b"x-request-id", request.encode())]
                message = {**message, "headers": kept}
            await send(message)

        async def receiving() -> Message:
            message = await receive()
            state["read"] += len(message.get("body", b""))
            state["whole"] = not message.get("more_body", False)
            if state["read"] > self.max_bytes:
                raise too_large(self.max_bytes)
            return message

        try:
            self._check(scope)
            await self.app(scope, receiving, sending)
        except Refused as refusal:
            self.metrics.refused.labels(refusal.code).inc()
            if not state["status"]:
                await respond(sending, refusal, scope["path"])
        except ClientDisconnect:
            pass  # it is noted as 499: nobody waits for an answer
        except Exception as error:
            # The log has the trace; the client has its number.
            log.error("request %s failed\n%s", request, trace_of(error))
            if not state["status"]:
                message = f"Something went wrong here; it is noted under {request}."
                await respond(sending, Refused(500, "internal", message), scope["path"])
        finally:
            self._note(scope, request, state["status"], state["read"], time.monotonic() - start)

    async def _finish_reading(self, receive: Receive, state: dict[str, int]) -> None:
        """Take what is left of a refused request, for a moment.

        A connection that is closed with something unread is reset, and the client may lose the
        answer that says why.
        """
        left = self.max_bytes
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while not state["whole"] and left > 0:
                    message = await receive()
                    left -= len(message.get("body", b"")) + 1
                    state["whole"] = not message.get("more_body", False)

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            raise Refused(400, "invalid", "The content length is not a number.")
        if int(length) > self.max_bytes:
            raise too_large(self.max_bytes)
        if self.token is None or scope["path"] in OPEN:
            return
        kind, _, shown = headers.get(b"authorization", b"").partition(b" ")
        right = hmac.compare_digest(shown.strip(), self.token)
        if kind.lower() != b"bearer" or not right:
            message = "A valid bearer token is needed."
            raise Refused(401, "unauthorised", message, {"WWW-Authenticate": "Bearer"})

    def _note(self, scope: Scope, request: str, status: int, read: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "other"
        self.metrics.requests.labels(route, str(status or 499)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        told = {
            "request": request,
            "method": scope["method"],
            "route": route,
            "status": status,
            "bytes": read,
            "ms": round(1000 * seconds, 2),
        }
        log.info(json.dumps(told))


async def respond(
    send: Callable[[Message], Awaitable[None]], refusal: Refused, path: str = ""
) -> None:
    """Send a refusal as JSON."""
    body = json.dumps(refusal.body(path), ensure_ascii=False).encode()
    headers: list[Any] = [
        (b"content-type", b"application/json; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # the rest of the body is not read
        *((name.lower().encode(), value.encode()) for name, value in refusal.headers.items()),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
