"""The page in a real browser: Chromium, driven by Playwright, offline."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jernih.answer import Answerer
from jernih.data.images import read_image, write_png
from jernih.data.modify import Prepare
from jernih.randomness import generator
from jernih.trial import attempt
from tests.assess.examples import run
from tests.data.test_dicom import write as write_dicom
from tests.test_answer import model

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytest.importorskip("gradio")
pytest.importorskip("playwright")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.filterwarnings("ignore"),  # the server's and the browser's own, in their threads
]
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The page on a free port of this machine; yields its address."""
    import uvicorn
    from fastapi import FastAPI

    from jernih.serve.page import PageSettings, mount_page

    assessment = run()
    for name in ("first", "second"):
        assessment.save(folder / "runs" / name / "assess" / "assessment.json")
        (folder / "runs" / name / "assess" / "report.html").write_text(f"<h1>Report {name}</h1>")
    settings = PageSettings(
        examples=[folder / "example.png"],
        runs=folder / "runs",
        leaderboard="# Leaderboard\n\nOurs is first.",
        title="A defence",
    )
    app = mount_page(FastAPI(), Answerer(model(prepare=Prepare(48)), "cpu"), settings)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="on")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        limit = time.monotonic() + 60
        while not server.started:
            if time.monotonic() > limit:
                raise TimeoutError("the server did not start")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    for name, size in (("example", (60, 40)), ("own", (50, 70))):
        write_png(folder / f"{name}.png", torch.rand(3, *size, generator=generator(name)))
    (folder / "broken.png").write_bytes((folder / "own.png").read_bytes()[:200])
    write_dicom(folder / "scan.dcm", np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
    return folder


@pytest.fixture(scope="module")
def address(files: Path) -> Iterator[str]:
    with serving(files) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield found
        found.close()


class Visit:
    """An open page, and what it asked the network for and complained of."""

    def __init__(self, browser: Any, address: str, width: int = 1280) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.page.set_default_timeout(30_000)
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.address = address
        self.page.goto(address)
        self.page.wait_for_selector("#go")

    def choose(self, file: Path) -> None:
        self.page.locator("#image input[type=file]").set_input_files(str(file))
        self.page.wait_for_function(
            "name => document.querySelector('#image').innerText.includes(name)", arg=file.stem[:8]
        )

    def go(self, words: str) -> str:
        self.page.click("#go")
        self.page.wait_for_function(
            "words => document.querySelector('#status').innerText.includes(words)", arg=words
        )
        return str(self.page.inner_text("#status"))

    def download(self, button: str) -> bytes:
        self.page.wait_for_selector(button)
        with self.page.expect_download() as found:
            self.page.click(button)
        return Path(found.value.path()).read_bytes()

    def outside(self) -> list[str]:
        inside = (self.address, "data:", "blob:")
        return [url for url in self.asked if not url.startswith(inside)]


def test_an_image_attacked_and_restored(browser: Any, address: str, files: Path) -> None:
    visit = Visit(browser, address)
    visit.choose(files / "own.png")
    status = visit.go("oblivious fgsm, L∞ ≤ 0.01")
    trial = attempt(
        Answerer(model(prepare=Prepare(48)), "cpu"), read_image(files / "own.png"), "fgsm", 0.01
    )
    assert f"defended it says {trial.attacked.label}" in status
    for name in ("clean", "attacked", "restored"):
        visit.page.wait_for_selector(f"#{name} img")
    label = visit.page.get_attribute(".jernih-gauge", "aria-label")
    assert label.startswith("Suspicion: ")
    assert "Attacked image:" in visit.page.inner_text("#verdict")
    record = json.loads(visit.download("#download-json"))
    assert record["attacked"]["defended"]["label"] == trial.attacked.label
    assert record["threat"]["knowledge"] == "oblivious"
    (files / "restored.png").write_bytes(visit.download("#download-image"))
    expected = (trial.attacked.restored * 255).round() / 255
    torch.testing.assert_close(read_image(files / "restored.png"), expected, atol=1 / 254, rtol=0)
    assert visit.outside() == []
    assert visit.errors == []
    if folder := os.environ.get("JERNIH_SCREENSHOTS"):
        visit.page.screenshot(path=f"{folder}/page.png", full_page=True)
    visit.page.close()


def test_by_keyboard_alone(browser: Any, address: str) -> None:
    visit = Visit(browser, address)
    keyboard = visit.page.keyboard
    visit.page.focus("#example input")
    keyboard.type("example")
    keyboard.press("Enter")
    visit.page.wait_for_function("document.querySelector('#image').innerText.includes('example')")
    for _ in range(30):
        keyboard.press("Tab")
        if visit.page.evaluate("document.activeElement.closest('#go') !== null"):
            break
    else:
        pytest.fail("Tab does not lead to the button")
    keyboard.press("Enter")
    visit.page.wait_for_function("document.querySelector('#status').innerText.includes('L∞')")
    visit.page.close()


def test_radiographs_and_what_is_no_image(browser: Any, address: str, files: Path) -> None:
    visit = Visit(browser, address)
    visit.go("Choose an image first")
    visit.choose(files / "scan.dcm")
    visit.go("oblivious fgsm")
    visit.page.close()
    visit = Visit(browser, address)
    visit.choose(files / "broken.png")
    said = visit.go("cannot be read as an image")
    assert str(files) not in said
    assert "Traceback" not in visit.page.inner_text("body")
    assert visit.errors == []
    visit.page.close()


def test_on_a_phone(browser: Any, address: str, files: Path) -> None:
    visit = Visit(browser, address, width=390)
    visit.choose(files / "own.png")
    visit.go("oblivious fgsm")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
    box = visit.page.locator("#go").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    visit.page.close()


def test_reports_and_leaderboard(browser: Any, address: str) -> None:
    visit = Visit(browser, address)
    visit.page.get_by_role("tab", name="Reports").click()
    visit.page.get_by_role("button", name="Show").click()
    frame = visit.page.frame_locator("iframe.jernih-report")
    assert frame.locator("h1").inner_text() == "Report first"
    visit.page.focus("#other-run input")
    visit.page.keyboard.type("second")
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_selector(".jernih-table table")
    assert "clean through purifier" in visit.page.inner_text(".jernih-table")
    visit.page.get_by_role("tab", name="Leaderboard").click()
    visit.page.wait_for_function("document.body.innerText.includes('Ours is first.')")
    assert visit.errors == []
    visit.page.close()


@pytest.mark.parametrize("name", ["none", "..%2F..%2Fetc%2Fpasswd", "first%2F.."])
def test_only_reports_of_runs_are_served(address: str, name: str) -> None:
    import httpx

    found = httpx.get(f"{address}reports/{name}")
    assert "Report" not in found.text
    assert "root:" not in found.text
    if name in ("none", "first%2F.."):
        assert found.status_code == 404


def test_a_report_is_served(address: str) -> None:
    import httpx

    assert httpx.get(f"{address}reports/first").text == "<h1>Report first</h1>"
