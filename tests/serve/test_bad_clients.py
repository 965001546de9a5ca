"""Clients that send slowly, leave, or send files that cost a lot to read."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.data.test_untrusted import deflated, many_scans
from tests.helpers import wait_until
from tests.serve.running import running
from tests.serve.test_http import PNG, answerer, post

httpx = pytest.importorskip("httpx")
pytestmark = pytest.mark.filterwarnings("ignore")


@contextmanager
def unfinished(address: str) -> Iterator[socket.socket]:
    """A connection on which a request has begun and does not go on."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as link:
        head = "POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        link.sendall(f"{head}Content-Length: 5000\r\n\r\nabc".encode())
        yield link


def test_slow_bodies_do_not_hold_the_service() -> None:
    from jernih.serve.settings import ServeSettings

    settings = ServeSettings(queue=1, batch=1, receive_s=1)
    with (
        running(answerer(), settings) as address,
        unfinished(address) as one,
        unfinished(address) as two,
    ):
        time.sleep(0.3)
        assert post(address, PNG).status_code == 503
        for link in (one, two):
            assert link.recv(1000).startswith(b"HTTP/1.1 408")
        assert post(address, PNG).status_code == 200


def test_clients_that_leave_are_no_failures(caplog: pytest.LogCaptureFixture) -> None:
    with running(answerer()) as address:
        with caplog.at_level(logging.INFO, "jernih.serve"), unfinished(address):
            time.sleep(0.3)
        wait_until(lambda: '"status": 0' in caplog.text)
        told = httpx.get(f"{address}/metrics").text
    assert 'status="499"' in told
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("make", "bounds", "words"),
    [
        (many_scans, {"decode_s": 3}, "longer than 3 s"),
        (deflated, {"decode_s": 60, "decode_mib": 300}, "more than 300 MiB"),
    ],
)
def test_files_that_cost_too_much_are_refused(
    make: Callable[[Path], Path], bounds: dict[str, Any], words: str, tmp_path: Path
) -> None:
    from jernih.serve.settings import ServeSettings

    content = make(tmp_path / "file").read_bytes()
    with running(answerer(), ServeSettings(decoders=1, **bounds)) as address:
        found = post(address, content)
        assert found.status_code == 413
        assert found.json()["error"]["code"] == "too_costly"
        assert words in found.json()["error"]["message"]
        assert post(address, PNG).status_code == 200


def test_a_refusal_reaches_those_who_are_still_sending() -> None:
    from jernih.serve.settings import ServeSettings

    with running(answerer(), ServeSettings(max_bytes=2_000_000), token="sesame") as address:  # noqa: S106 - a test's
        host, port = address.removeprefix("http://").split(":")
        for _ in range(20):
            with socket.create_connection((host, int(port)), timeout=20) as link:
                head = "POST /v1/classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                body = b"x" * 1_500_000
                link.sendall(
                    f"{head}Content-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                )
                time.sleep(0.02)  # the refusal is on its way before the body is
                link.sendall(body)
                said = b""
                while piece := link.recv(10_000):
                    said += piece
            assert said.startswith(b"HTTP/1.1 401")
            assert b"bearer token" in said
