"""The Open Inference Protocol, version 2: what clients of Triton and KServe speak."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from torch import Tensor

from jernih.answer import Answer
from jernih.serve.errors import Refused
from jernih.serve.service import Service

_HEADER = "inference-header-content-length"
USUAL = ("probabilities", "suspicion", "flagged")
"""What is sent where a client does not say what it wants."""

_TEXT = {"type": "string"}
_ERROR = {
    "description": "Refused: why, in one sentence.",
    "content": {"application/json": {"schema": {"type": "object", "properties": {"error": _TEXT}}}},
}
_UNKNOWN: dict[int | str, dict[str, Any]] = {404: _ERROR}
_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"description": "Not ready."}}
_REFUSALS: dict[int | str, dict[str, Any]] = dict.fromkeys(
    (400, 401, 404, 408, 413, 422, 503, 504), _ERROR
)
_PARAMETERS = {"type": "object"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "id": _TEXT,
                        "inputs": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": 1,
                            "items": {
                                "type": "object",
                                "required": ["name", "datatype", "shape"],
                                "properties": {
                                    "name": {"enum": ["images"]},
                                    "datatype": {"enum": ["FP32"]},
                                    "shape": {
                                        "type": "array",
                                        "minItems": 4,
                                        "maxItems": 4,
                                        "items": {"type": "integer", "minimum": 1},
                                    },
                                    "data": {"type": "array"},
                                    "parameters": _PARAMETERS,
                                },
                            },
                        },
                        "outputs": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["name"],
                                "properties": {"name": _TEXT, "parameters": _PARAMETERS},
                            },
                        },
                        "parameters": _PARAMETERS,
                    },
                }
            }
        },
    }
}


def protocol_routes(service: Service) -> APIRouter:
    """``/v2`` and what is below it."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    name = service.settings.name

    def known(asked: str) -> None:
        if asked != name:
            raise Refused(404, "not_found", "There is no model of this name.")

    @router.get("")
    async def server() -> dict[str, Any]:
        """The server and its version."""
        return {
            "name": "jernih",
            "version": service.version,
            "extensions": ["binary_tensor_data"],
        }

    @router.get("/health/live")
    async def live() -> dict[str, bool]:
        """Whether the server runs."""
        return {"live": True}

    @router.get("/health/ready", responses=_NOT_READY)
    async def ready() -> Response:
        """Whether it can answer."""
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @router.get("/models/{model}", responses=_UNKNOWN)
    async def metadata(model: str) -> dict[str, Any]:
        """The model's inputs and outputs."""
        known(model)
        return {
            "name": name,
            "versions": [service.version],
            "platform": "jernih_pytorch",
            "inputs": [{"name": "images", "datatype": "FP32", "shape": [-1, 3, *_sides(service)]}],
            "outputs": [
                {"name": output, "datatype": kind, "shape": shape}
                for output, (kind, shape) in _outputs(service).items()
            ],
        }

    @router.get("/models/{model}/ready", responses={**_UNKNOWN, **_NOT_READY})
    async def model_ready(model: str) -> Response:
        """Whether the model can answer."""
        known(model)
        state = {"name": name, "ready": service.ready}
        return JSONResponse(state, 200 if service.ready else 503)

    @router.post("/models/{model}/infer", responses=_REFUSALS, openapi_extra=_BODY)
    async def infer(model: str, request: Request) -> Response:
        """Answers for images (N, 3, H, W) in [0, 1], already of the size that the model takes."""
        known(model)
        with service.admitted():
            async with service.receiving():
                body = await request.body()
            asked, raw = _parts(body, request.headers.get(_HEADER))
            images = _images(asked, raw, service)
            answers = await service.answered(request, list(images))
        return _response(asked, answers, service)

    return router


def _sides(service: Service) -> tuple[int, int]:
    prepare = service.answerer.defended.prepare
    return (-1, -1) if prepare is None else (prepare.size, prepare.size)


def _outputs(service: Service) -> dict[str, tuple[str, list[int]]]:
    detector = service.answerer.defended.detector
    found: dict[str, tuple[str, list[int]]] = {
        "probabilities": ("FP32", [-1, len(service.answerer.classes)]),
        "restored": ("FP32", [-1, 3, *_sides(service)]),
    }
    if detector is not None:
        found["suspicion"] = ("FP32", [-1])
        if detector.threshold is not None:
            found["flagged"] = ("BOOL", [-1])
    return found


def _parts(body: bytes, header: str | None) -> tuple[dict[str, Any], bytes]:
    """The JSON at the body's beginning, and the raw tensors after it, if there are any."""
    length = len(body)
    if header is not None:
        if not header.isdigit() or int(header) > length:
            raise Refused(400, "invalid", "The length of the header is not one.")
        length = int(header)
    try:
        asked = json.loads(body[:length])
    except (ValueError, RecursionError):
        raise Refused(400, "invalid", "The body is not valid JSON.") from None
    if not isinstance(asked, dict):
        raise Refused(422, "invalid", "The body has to be a JSON object.")
    return asked, body[length:]


def _images(asked: dict[str, Any], raw: bytes, service: Service) -> Tensor:
    inputs = asked.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Refused(422, "invalid", 'There has to be one input, "images".')
    given = inputs[0]
    if given.get("name") != "images" or given.get("datatype") != "FP32":
        raise Refused(422, "invalid", 'The input has to be "images", of datatype FP32.')
    shape = given.get("shape")
    if not (
        isinstance(shape, list)
        and len(shape) == 4
        and all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in shape)
    ):
        raise Refused(422, "invalid", "The shape has to be [N, 3, H, W].")
    height, width = _sides(service)
    if shape[1] != 3 or (height > 0 and shape[2:] != [height, width]):
        wanted = f"[N, 3, {height}, {width}]" if height > 0 else "[N, 3, H, W]"
        raise Refused(422, "invalid", f"The shape has to be {wanted}.")
    if shape[0] > service.settings.max_images:
        raise Refused(413, "too_many", f"There are more than {service.settings.max_images} images.")
    if shape[2] * shape[3] > service.settings.max_pixels:
        message = f"An image has more than {service.settings.max_pixels:,} pixels."
        raise Refused(413, "too_many_pixels", message)
    count = math.prod(shape)
    values = _values(given, raw, count)
    images = torch.from_numpy(values.reshape(shape))
    if not bool(torch.isfinite(images).all()) or images.min() < 0 or images.max() > 1:
        raise Refused(422, "invalid", "The values have to be in [0, 1].")
    return images


def _values(given: dict[str, Any], raw: bytes, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    parameters = given.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None:
        if size != len(raw) or size != 4 * count:
            raise Refused(422, "invalid", "The binary data is not as long as the shape says.")
        return np.frombuffer(raw, dtype="<f4").astype(np.float32)
    try:
        values = np.asarray(given.get("data"), dtype=np.float32).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        raise Refused(422, "invalid", "The data has to be numbers.") from None
    if values.size != count:
        raise Refused(422, "invalid", "There are not as many values as the shape says.")
    return values


def _response(asked: dict[str, Any], answers: Sequence[Answer], service: Service) -> Response:
    there = _outputs(service)
    wanted = asked.get("outputs")
    whole = asked.get("parameters")
    binary = isinstance(whole, dict) and whole.get("binary_data_output") is True
    if wanted is None:
        chosen = [(output, binary) for output in USUAL if output in there]
    else:
        chosen = [_chosen(one, there, binary) for one in (wanted if wanted else [{}])]
    outputs, pieces = [], []
    for output, raw in chosen:
        values = _output(output, answers)
        told: dict[str, Any] = {
            "name": output,
            "datatype": there[output][0],
            "shape": list(values.shape),
        }
        if raw:
            pieces.append(values.tobytes())
            told["parameters"] = {"binary_data_size": len(pieces[-1])}
        else:
            told["data"] = values.reshape(-1).tolist()
        outputs.append(told)
    body: dict[str, Any] = {
        "model_name": service.settings.name,
        "model_version": service.version,
        "outputs": outputs,
    }
    if isinstance(asked.get("id"), str):
        body["id"] = asked["id"][:200]
    if not pieces:
        return JSONResponse(body)
    head = json.dumps(body).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return Response(
        b"".join([head, *pieces]), headers=headers, media_type="application/octet-stream"
    )


def _chosen(one: Any, there: dict[str, Any], binary: bool) -> tuple[str, bool]:
    name = one.get("name") if isinstance(one, dict) else None
    if not isinstance(name, str) or name not in there:
        raise Refused(422, "invalid", f"The outputs are {', '.join(sorted(there))}.")
    parameters = one.get("parameters")
    raw = parameters.get("binary_data") if isinstance(parameters, dict) else None
    return name, binary if raw is None else raw is True


def _output(name: str, answers: Sequence[Answer]) -> np.ndarray[Any, Any]:
    if name == "probabilities":
        return np.array([list(answer.probabilities.values()) for answer in answers], np.float32)
    if name == "restored":
        return torch.stack([answer.restored for answer in answers]).numpy()
    if name == "suspicion":
        return np.array([answer.suspicion for answer in answers], np.float32)
    return np.array([answer.flagged for answer in answers], np.bool_)
