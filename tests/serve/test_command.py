"""``jernih serve`` as people start it: a process of its own, with the page, until it is ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from jernih.data.images import write_png
from jernih.data.modify import Prepare
from jernih.hub import write_defended
from tests.test_answer import model
from tests.test_cli import call

httpx = pytest.importorskip("httpx")
pytest.importorskip("gradio")


def started(arguments: list[str], **environment: str) -> tuple[Any, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "jernih", "serve", *arguments, "--port", str(port)],
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    address = f"http://127.0.0.1:{port}"
    limit = time.monotonic() + 120
    while time.monotonic() < limit and process.poll() is None:
        try:
            if httpx.get(f"{address}/health").status_code == 200:
                return process, address
        except httpx.TransportError:
            time.sleep(0.2)
    process.kill()
    raise TimeoutError(process.communicate()[1])


def test_from_start_to_end(tmp_path: Path) -> None:
    write_defended(model(prepare=Prepare(32)), tmp_path / "model")
    image = write_png(tmp_path / "a.png", torch.rand(3, 30, 40)).read_bytes()
    process, address = started([str(tmp_path / "model"), "--device", "cpu"])
    try:
        found = httpx.post(f"{address}/v1/classify", files={"image": image}, timeout=60)
        assert found.json()["label"] in "abc"
        assert "gradio" in httpx.get(f"{address}/").text
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    lines = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
    assert lines[0] == {"listening": address, "page": True}
    assert {"/v1/classify", "/health"} <= {line.get("route") for line in lines}
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "a run's folder, a packaged model or owner/name"),
        (["MODEL", "--token-file", "nowhere"], "--token-file: expected an existing file"),
        (["MODEL", "--batch", "0"], "batch"),
        (["MODEL", "--name", "a b"], "name"),
    ],
)
def test_what_is_refused(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_defended(model(prepare=Prepare(32)), tmp_path / "model")
    given = [str(tmp_path / "model") if word == "MODEL" else word for word in arguments]
    code, _, err = call("serve", *given, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2
    assert words in " ".join(err.split())
