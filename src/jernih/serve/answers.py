"""Answers of the model as JSON."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from jernih.answer import Answer
from jernih.serve.page.pictures import overlay, pixels

VERDICTS = {True: "suspicious", False: "not suspicious", None: "unknown"}


def verdict_of(answer: Answer) -> str:
    """Rejected, suspicious, not suspicious, or unknown where no detector was asked."""
    return "rejected" if answer.action == "rejected" else VERDICTS[answer.flagged]


def as_json(answer: Answer, *, restored: bool, areas: bool) -> dict[str, Any]:
    """An answer as plain data, with pictures as base64 PNG where they are asked for."""
    told: dict[str, Any] = {
        "label": answer.label,
        "index": answer.index,
        "probabilities": answer.probabilities,
        "suspicion": answer.suspicion,
        "threshold": answer.threshold,
        "flagged": answer.flagged,
        "action": answer.action,
        "verdict": verdict_of(answer),
    }
    if restored:
        told["restored_png"] = _png(pixels(answer.restored))
    if areas:
        told["areas_png"] = None if answer.areas is None else _png(_overlaid(answer, answer.areas))
    return told


def _overlaid(answer: Answer, areas: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    seen = answer.seen if answer.action == "as it came" else answer.restored
    return overlay(seen, areas)


def _png(image: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")
