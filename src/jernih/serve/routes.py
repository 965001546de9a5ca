"""The routes for images: one, or several at once."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from torch import Tensor

from jernih.serve.answers import as_json
from jernih.serve.decode import decode_base64
from jernih.serve.errors import Refused
from jernih.serve.service import Service

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "string", "format": "binary"}},
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "string", "description": "base64"}},
                }
            },
        },
    }
}
_BODIES = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {"images": {"type": "array", "items": {"type": "string"}}},
                }
            },
        },
    }
}
_ERROR = {
    "description": "Refused: why, in one sentence.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "error": {
                        "type": "object",
                        "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
                    }
                },
            }
        }
    },
}
REFUSALS: dict[int | str, dict[str, Any]] = dict.fromkeys(
    (400, 401, 408, 413, 415, 422, 503, 504), _ERROR
)


def image_routes(service: Service) -> APIRouter:
    """``/v1/classify`` and ``/v1/classify/batch``."""
    router = APIRouter(prefix="/v1", tags=["images"])

    @router.post("/classify", responses=REFUSALS, openapi_extra=_BODY)
    async def classify(request: Request, restored: bool = False, areas: bool = False) -> Any:
        """Classify one image: a file (multipart), or base64 in JSON.

        With ``restored`` the restored image comes along, with ``areas`` the image classified under
        a heatmap of where the class was found (Grad-CAM), both as base64 PNG.
        """
        start = time.monotonic()
        with service.admitted():
            async with service.receiving():
                contents = await _contents(request, "image", 1)
            if len(contents) != 1:
                raise Refused(422, "invalid", 'There has to be one image, in the field "image".')
            image = await service.decoded(contents[0])
            (answer,) = await service.answered(request, [image], areas=areas)
        return {
            **as_json(answer, restored=restored, areas=areas),
            "model": service.settings.name,
            "version": service.version,
            "milliseconds": round(1000 * (time.monotonic() - start), 3),
        }

    @router.post("/classify/batch", responses=REFUSALS, openapi_extra=_BODIES)
    async def classify_batch(request: Request, restored: bool = False, areas: bool = False) -> Any:
        """Classify several images; each is answered, or refused with its own reason."""
        start = time.monotonic()
        with service.admitted():
            async with service.receiving():
                contents = await _contents(request, "images", service.settings.max_images)
            if not contents:
                raise Refused(422, "invalid", 'There has to be an image in the field "images".')
            prepared: list[Tensor] = []
            results: list[dict[str, Any] | None] = []
            for content in contents:
                try:
                    if isinstance(content, Refused):
                        raise content
                    prepared.append(await service.decoded(content))
                    results.append(None)
                except Refused as refusal:
                    service.metrics.refused.labels(refusal.code).inc()
                    results.append(refusal.body())
            answers = iter(await service.answered(request, prepared, areas=areas))
        told = [
            as_json(next(answers), restored=restored, areas=areas) if refusal is None else refusal
            for refusal in results
        ]
        return JSONResponse(
            {
                "results": told,
                "model": service.settings.name,
                "version": service.version,
                "milliseconds": round(1000 * (time.monotonic() - start), 3),
            }
        )

    return router


async def _contents(request: Request, field: str, most: int) -> list[Any]:
    """The encoded images of a request, or why one of several cannot be had."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        try:
            async with request.form(max_files=most, max_fields=most) as form:
                found = [
                    await value.read() if isinstance(value, UploadFile) else str(value).encode()
                    for name, value in form.multi_items()
                    if name in (field, "image")
                ]
        except MultiPartException as error:
            raise Refused(400, "invalid", f"The form cannot be read: {error.message}") from None
        except HTTPException as error:
            raise Refused(400, "invalid", f"The form cannot be read: {error.detail}") from None
        return found
    if kind == "application/json":
        held = await json_body(request)
        if field == "image":
            return [decode_base64(held.get("image"))]
        images = held.get("images")
        if not isinstance(images, list):
            raise Refused(422, "invalid", 'The field "images" has to be a list.')
        if len(images) > most:
            raise Refused(413, "too_many", f"There are more than {most} images.")
        return [_or_refusal(image) for image in images]
    if kind.startswith("image/") or kind in ("application/octet-stream", "application/dicom"):
        return [await request.body()]
    raise Refused(415, "unknown_type", "Send multipart/form-data, JSON, or the image itself.")


def _or_refusal(image: object) -> bytes | Refused:
    try:
        return decode_base64(image)
    except Refused as refusal:
        return refusal


async def json_body(request: Request) -> dict[str, Any]:
    """The JSON object of a request's body.

    Raises:
        Refused: for anything else.
    """
    try:
        held = await request.json()
    except (ValueError, RecursionError):
        raise Refused(400, "invalid", "The body is not valid JSON.") from None
    if not isinstance(held, dict):
        raise Refused(422, "invalid", "The body has to be a JSON object.")
    return held
