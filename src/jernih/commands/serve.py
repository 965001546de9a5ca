"""``jernih serve``: the defended model over HTTP, with a web page."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from jernih.validate import InputError

TOKEN = "JERNIH_TOKEN"  # noqa: S105 - the name of a variable


def serve(
    model: Annotated[
        str, typer.Argument(help="A run's folder, a packaged model, or OWNER/NAME on the hub.")
    ],
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on.")] = 8000,
    name: Annotated[str, typer.Option("--name", help="The model's name in /v2.")] = "jernih",
    batch: Annotated[int, typer.Option("--batch", help="Most images at once.")] = 8,
    wait_ms: Annotated[
        float, typer.Option("--wait-ms", help="How long the first of a batch waits for others.")
    ] = 5.0,
    queue: Annotated[
        int, typer.Option("--queue", help="Most images that wait; above, requests get 503.")
    ] = 64,
    timeout: Annotated[
        float, typer.Option("--timeout", help="Longest wait for an answer, in seconds.")
    ] = 30.0,
    max_bytes: Annotated[int, typer.Option("--max-bytes", help="Largest request, in bytes.")] = 32
    * 2**20,
    max_pixels: Annotated[
        int, typer.Option("--max-pixels", help="Largest image, in pixels.")
    ] = 25_000_000,
    decode_s: Annotated[
        float, typer.Option("--decode-s", help="Longest that an image may take to unpack, in s.")
    ] = 5.0,
    decode_mib: Annotated[
        int, typer.Option("--decode-mib", help="Most memory to unpack an image, in MiB.")
    ] = 1024,
    workers: Annotated[
        int,
        typer.Option(
            "--workers", help="Processes with a copy of the model each; 0 for the service's own."
        ),
    ] = 0,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help=f"File with the bearer token; or set {TOKEN}."),
    ] = None,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Serve the web page.")] = True,
    runs: Annotated[
        Path | None, typer.Option("--runs", help="Folder of runs whose reports the page shows.")
    ] = None,
    examples: Annotated[
        Path | None, typer.Option("--examples", help="Folder of images to try on the page.")
    ] = None,
    leaderboard: Annotated[
        Path | None, typer.Option("--leaderboard", help="Leaderboard (Markdown) for the page.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Let the model's own code or program run.")
    ] = False,
) -> None:
    """Serve a defended model."""
    from functools import partial

    from pydantic import ValidationError

    from jernih.answer import Answerer
    from jernih.pipeline import find_defended

    try:
        import uvicorn

        from jernih.serve.app import build_app
        from jernih.serve.service import reader_of
        from jernih.serve.settings import ServeSettings
        from jernih.serve.workers import ModelProcesses
    except ImportError as error:
        hint = "pip install 'jernih[serve]'"
        raise InputError("serve", f"the package {error.name}", "none", hint) from None
    try:
        settings = ServeSettings(
            name=name, batch=batch, wait_ms=wait_ms, queue=queue, timeout_s=timeout,
            max_bytes=max_bytes, max_pixels=max_pixels, decode_s=decode_s, decode_mib=decode_mib,
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(str(first["loc"][0]), first["msg"], first["input"]) from None
    token = read_token(token_file)
    answerer = Answerer(find_defended(model, trust_code=trust_code), device)
    images = reader_of(settings)
    load = partial(find_defended, model, trust_code=trust_code)
    copies = ModelProcesses(load, workers, device) if workers else None
    mount = None
    if page and token is None:
        from jernih.serve.page import PageSettings, mount_page

        shown = PageSettings(
            examples=_examples(examples),
            runs=runs,
            leaderboard="" if leaderboard is None else leaderboard.read_text(encoding="utf-8"),
            max_bytes=max_bytes,
            title=str(answerer.defended.card.get("title") or "Jernih"),
        )
        mount = partial(mount_page, answerer=answerer, settings=shown, images=images)
    app = build_app(answerer, settings, images=images, workers=copies, token=token, page=mount)
    _log()
    log = logging.getLogger("jernih.serve")
    log.info(
        '{"listening": "http://%s:%d", "page": %s}', host, port, str(mount is not None).lower()
    )
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        access_log=False,  # ours says what is needed, and nothing of the content
        log_level="warning",
        timeout_graceful_shutdown=int(settings.drain_s) + 1,
        server_header=False,
    )
    uvicorn.Server(config).run()


def read_token(file: Path | None) -> str | None:
    """The token from a file or from the environment; None for neither.

    Raises:
        InputError: for a file that is not there or empty.
    """
    if file is None:
        return os.environ.get(TOKEN) or None
    if not file.is_file():
        raise InputError("--token-file", "an existing file", file)
    token = file.read_text(encoding="utf-8").strip()
    if not token:
        raise InputError("--token-file", "a token", "an empty file")
    return token


def _examples(folder: Path | None) -> list[Path]:
    from jernih.data.unlabelled import unlabelled_files

    return [] if folder is None else unlabelled_files(str(folder), "--examples")[:24]


def _log() -> None:
    """One JSON object a line on the error stream, and nothing twice."""
    # What these say quotes values of files: names of patients among them.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("jernih.serve")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [handler]
