"""Nothing calls home: programs are run with every address but this machine's refused and noted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import small_run

WATCHED = """
import socket, sys

tried = []
real_connect, real_lookup = socket.socket.connect, socket.getaddrinfo


def is_here(host):
    return host in (None, "", "localhost", "0.0.0.0", "::1", "::") or str(host).startswith("127.")


def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and not is_here(address[0]):
        tried.append(address[0])
        raise OSError("refused by the test")
    return real_connect(self, address)


def lookup(host, *rest, **more):
    if not is_here(host.decode() if isinstance(host, bytes) else host):
        tried.append(host)
        raise socket.gaierror("refused by the test")
    return real_lookup(host, *rest, **more)


socket.socket.connect, socket.getaddrinfo = connect, lookup
"""
SERVICE = """
import time
from functools import partial
from jernih.answer import Answerer
from jernih.serve.page import PageSettings, mount_page
from tests.serve.running import running
from tests.test_answer import model
import httpx

if __name__ == "__main__":
    answerer = Answerer(model(), "cpu")
    page = partial(mount_page, answerer=answerer, settings=PageSettings())
    with running(answerer, page=page) as address:
        assert httpx.get(address + "/health").status_code == 200
        assert "gradio" in httpx.get(address).text
        time.sleep(3)
    import highdicom, huggingface_hub, lightning, pynetdicom, timm
    print("TRIED", tried)
"""
RUN = """
from jernih.config import load_config
from jernih.pipeline import Pipeline

if __name__ == "__main__":
    Pipeline(load_config({config!r}), out={out!r}).run()
    print("TRIED", tried)
"""


def tried(script: Path, code: str) -> str:
    """What a program tried to reach, as it says in its last line."""
    script.write_text(WATCHED + code)
    found = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "ignore", str(script)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert found.returncode == 0, found.stderr[-2000:]
    return found.stdout.splitlines()[-1]


def test_the_watch_sees_what_is_tried(tmp_path: Path) -> None:
    code = """
import urllib.request
try:
    urllib.request.urlopen("http://example.org", timeout=1)
except OSError:
    pass
print("TRIED", tried)
"""
    assert tried(tmp_path / "a.py", code) == "TRIED ['example.org']"


def test_the_service_with_its_page_calls_nobody(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    assert tried(tmp_path / "service.py", SERVICE) == "TRIED []"


def test_a_run_calls_nobody(tmp_path: Path) -> None:
    import yaml

    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(small_run(tmp_path).model_dump(mode="json")))
    code = RUN.format(config=str(file), out=str(tmp_path / "run"))
    assert tried(tmp_path / "run.py", code) == "TRIED []"
