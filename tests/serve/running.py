"""A real server on a free port of this machine, for tests."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jernih.answer import Answerer
from jernih.serve.app import build_app
from jernih.serve.settings import ServeSettings


@contextmanager
def running(
    answerer: Answerer, settings: ServeSettings | None = None, **options: Any
) -> Iterator[str]:
    """Serve until the block ends; yields the address."""
    with serving(build_app(answerer, settings, **options)) as address:
        yield address


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an application until the block ends; yields its address."""
    import uvicorn

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", access_log=False)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        limit = time.monotonic() + 60
        while not server.started:
            if time.monotonic() > limit or not thread.is_alive():
                raise TimeoutError("the server did not start")
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
