"""Settings of the node."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from jernih.validate import InputError

_CHARACTER = r"[\x21-\x5b\x5d-\x7e]"
Title = Annotated[str, Field(pattern=rf"^{_CHARACTER}([\x20-\x5b\x5d-\x7e]{{0,14}}{_CHARACTER})?$")]
"""An application entity title: up to 16 characters, no backslash (PS3.5, 6.2)."""


class Peer(BaseModel):
    """Where results are sent.

    Attributes:
        title: its application entity title.
        host: its address.
        port: its port.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: Title
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]


class NodeSettings(BaseModel):
    """How the node listens, what it takes, and how it sends.

    Attributes:
        peer: where results are sent.
        spool: the folder in which nothing is lost.
        title: the node's own application entity title.
        host: the address that it listens on.
        port: the port; 0 for any that is free.
        allow: the titles of those that may send; none for everybody.
        max_bytes: largest instance.
        max_pixels: largest image, in pixels.
        decode_s: longest that one image may take to unpack, in seconds.
        decode_mib: most memory that one image may take to unpack, in MiB.
        batch: most images that pass the model together.
        associations: most connections at once.
        idle_s: how long a connection may say nothing, in seconds.
        retry_s: how long to wait before a second try to send, in seconds; doubled with each try.
        retry_most_s: longest wait between two tries.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    peer: Peer
    spool: Path
    title: Title = "JERNIH"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 11112
    allow: tuple[Title, ...] = ()
    max_bytes: Annotated[int, Field(ge=1024)] = 256 * 2**20
    max_pixels: Annotated[int, Field(ge=64)] = 25_000_000
    decode_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    decode_mib: Annotated[int, Field(ge=64)] = 1024
    batch: Annotated[int, Field(ge=1, le=256)] = 8
    associations: Annotated[int, Field(ge=1, le=1000)] = 10
    idle_s: Annotated[float, Field(gt=0)] = 60.0
    retry_s: Annotated[float, Field(gt=0)] = 1.0
    retry_most_s: Annotated[float, Field(gt=0)] = 300.0


def read_peer(text: str) -> Peer:
    """Read ``"TITLE@host:port"``.

    Raises:
        InputError: for anything else.
    """
    found = re.fullmatch(r"([^@]{1,16})@(\[[^\]]+\]|[^:]+):(\d{1,5})", text)
    wanted = "TITLE@host:port, such as ORTHANC@127.0.0.1:4242"
    if found is None or not 1 <= int(found[3]) <= 65535:
        raise InputError("peer", wanted, repr(text))
    try:
        return Peer(title=found[1], host=found[2].strip("[]"), port=int(found[3]))
    except ValueError:
        raise InputError("peer", wanted, repr(text)) from None
