"""``jernih dicom-node``: the defended model on a DICOM network."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Annotated

import typer

from jernih.validate import InputError


def dicom_node(
    model: Annotated[
        str, typer.Argument(help="A run's folder, a packaged model, or OWNER/NAME on the hub.")
    ],
    peer: Annotated[
        str, typer.Option("--peer", help="Where results go: TITLE@host:port.", metavar="PEER")
    ],
    spool: Annotated[Path, typer.Option("--spool", help="Folder in which nothing is lost.")],
    title: Annotated[str, typer.Option("--ae-title", help="The node's own title.")] = "JERNIH",
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on.")] = 11112,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", help="Title that may send; may be repeated. None: everybody."),
    ] = None,
    max_bytes: Annotated[int, typer.Option("--max-bytes", help="Largest instance, in bytes.")] = 256
    * 2**20,
    batch: Annotated[int, typer.Option("--batch", help="Most images at once.")] = 8,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Let the model's own code or program run.")
    ] = False,
) -> None:
    """Take radiographs, and send reports and restored images."""
    from pydantic import ValidationError

    from jernih.answer import Answerer
    from jernih.pipeline import find_defended

    try:
        from jernih.dicom_node import DicomNode, NodeSettings, read_peer
    except ImportError as error:
        hint = "pip install 'jernih[dicom]'"
        raise InputError("dicom-node", f"the package {error.name}", "none", hint) from None
    try:
        settings = NodeSettings(
            peer=read_peer(peer), spool=spool, title=title, host=host, port=port,
            allow=tuple(allow or ()), max_bytes=max_bytes, batch=batch,
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(str(first["loc"][0]), first["msg"], first["input"]) from None
    answerer = Answerer(find_defended(model, trust_code=trust_code), device)
    # What these say quotes values of instances: names of patients among them.
    for name in ("pynetdicom", "pydicom", "highdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("jernih.dicom")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [handler]
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with DicomNode(answerer, settings) as node:
        logging.getLogger("jernih.dicom").info(
            "%s listens on %s:%d and sends to %s", title, host, node.port, peer
        )
        ended.wait()
