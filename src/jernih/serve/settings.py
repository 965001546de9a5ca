"""Settings of the service."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ServeSettings(BaseModel):
    """What the service allows, and how it batches.

    Attributes:
        name: what the model is called in the Open Inference Protocol.
        batch: most images that pass the model together.
        wait_ms: how long the first image of a batch waits for others, in milliseconds.
        queue: most images that wait; above, requests are refused at once.
        timeout_s: longest that a request waits for its answer, in seconds.
        max_bytes: largest body of a request.
        max_pixels: largest image, in pixels.
        decoders: images that are unpacked at once, each in a process of its own.
        decode_s: longest that one image may take to unpack, in seconds.
        decode_mib: most memory that one image may take to unpack, in MiB.
        receive_s: longest that a request may take to come in, in seconds.
        max_images: most images of a request.
        drain_s: longest that the end waits for requests accepted before, in seconds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,80}$")] = "jernih"
    batch: Annotated[int, Field(ge=1, le=1024)] = 8
    wait_ms: Annotated[float, Field(ge=0, le=1000)] = 5.0
    queue: Annotated[int, Field(ge=1, le=100_000)] = 64
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    max_bytes: Annotated[int, Field(ge=1024)] = 32 * 2**20
    max_pixels: Annotated[int, Field(ge=64)] = 25_000_000
    decoders: Annotated[int, Field(ge=1, le=64)] = 2
    decode_s: Annotated[float, Field(gt=0, le=600)] = 5.0
    decode_mib: Annotated[int, Field(ge=64)] = 1024
    receive_s: Annotated[float, Field(gt=0, le=3600)] = 20.0
    max_images: Annotated[int, Field(ge=1, le=1024)] = 32
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 20.0
