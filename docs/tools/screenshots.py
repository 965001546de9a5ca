"""Screenshots of the web page in a real Chromium: wide, and as wide as a phone.

    python docs/tools/screenshots.py --model runs/jernih-s-chest-xray \
        --image shared/data/chest-xray/test/NORMAL/IM-0001-0001.jpeg

The image has to be one that may be shipped: the one in the documentation is from Kermany et al.,
Cell 2018 (https://doi.org/10.17632/rscbjbr9sj, CC BY 4.0). Needs the extra serve, Playwright and
Chromium.
"""

from __future__ import annotations

import argparse
import io
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from jernih.answer import Answerer
from jernih.pipeline import find_defended
from jernih.storage import atomic_path

ASSETS = Path(__file__).parents[1] / "assets"
WIDTHS = {"page": 1100, "page-phone": 390}
LOWEST = {"page": 1500, "page-phone": 2000}
"""Pixels from the top that are kept."""


@contextmanager
def serving(model: str) -> Iterator[str]:
    """The page on a free port of this machine; yields its address."""
    import uvicorn
    from fastapi import FastAPI

    from jernih.serve.page import PageSettings, mount_page

    app = mount_page(FastAPI(), Answerer(find_defended(model), "cpu"), PageSettings())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    limit = time.monotonic() + 60
    while not server.started:
        if time.monotonic() > limit:
            raise TimeoutError("the server did not start")
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join(20)


def shot(browser: Any, address: str, image: Path, width: int) -> Image.Image:
    """The whole page after an image was attacked and restored."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="light")
    page.set_default_timeout(60_000)
    page.goto(address)
    page.locator("#image input[type=file]").set_input_files(str(image))
    page.wait_for_function(
        "name => document.querySelector('#image').innerText.includes(name)", arg=image.stem[:8]
    )
    page.click("#go")
    page.wait_for_function("document.querySelector('#status').innerText.includes('L∞')")
    for name in ("clean", "attacked", "restored"):
        page.wait_for_selector(f"#{name} img")
    page.wait_for_function("[...document.images].every(image => image.complete)")
    page.wait_for_timeout(1500)  # what unfolds has unfolded
    taken = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    page.close()
    return taken


def main() -> None:
    """Take both and make them small."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="as jernih serve takes it")
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ASSETS)
    given = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with serving(given.model) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, width in WIDTHS.items():
            taken = shot(browser, address, given.image, width)
            kept = taken.crop((0, 0, taken.width, min(taken.height, LOWEST[name])))
            with atomic_path(given.out / f"{name}.png") as path:
                small = kept.quantize(48, dither=Image.Dither.NONE)
                small.save(path, "PNG", optimize=True)
            print(name, taken.size, kept.size, (given.out / f"{name}.png").stat().st_size)
        browser.close()


if __name__ == "__main__":
    main()
