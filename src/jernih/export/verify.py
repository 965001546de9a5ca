"""Whether a graph in ONNX says what the model itself says."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from jernih.defended import Defended, Inspection
from jernih.export.graph import IMAGES, OUTPUTS
from jernih.randomness import generator
from jernih.validate import InputError

TOLERANCE = 1e-4
"""Largest difference: of probabilities and pixels as they are, of logits and scores beside the
largest of them."""


def verify(
    session: Any,
    defended: Defended,
    size: int,
    batches: tuple[int, ...],
    tolerance: float = TOLERANCE,
) -> dict[str, Any]:
    """Compare an ONNX Runtime session with the model on random images, noise and smooth ones.

    Args:
        session: the session.
        defended: the model, in evaluation mode, on any device.
        size: height and width of the images.
        batches: how many images to ask about at once.
        tolerance: the largest difference allowed.

    Returns:
        the largest difference of each output, as :data:`TOLERANCE` counts it, and the number of
        images compared.

    Raises:
        InputError: for outputs of another name, shape or type, and for a difference that is too
            large.
    """
    names = [one.name for one in session.get_outputs()]
    found: dict[str, float] = {}
    count = 0
    for batch in batches:
        for images in random_images(batch, size):
            ours = defended.inspect(images.to(defended.classifier.mean.device))
            theirs = dict(zip(names, session.run(None, {IMAGES: images.numpy()}), strict=True))
            for name, difference in _differences(ours, theirs, defended).items():
                found[name] = max(found.get(name, 0.0), difference)
            count += batch
    for name, difference in found.items():
        if not difference <= tolerance:
            raise InputError(
                "ONNX file",
                f"the model's own answers to within {tolerance:g}",
                f"{name} that differ by {difference:.3g}",
                "nothing was written",
            )
    return {"n": count, **found}


def random_images(batch: int, size: int) -> list[Tensor]:
    """Two batches of images (batch, 3, size, size) in [0, 1]: noise, and smooth ones."""
    source = generator("verify", batch, size)
    noise = torch.rand(batch, 3, size, size, generator=source)
    coarse = torch.rand(batch, 3, 5, 5, generator=source) * 1.4 - 0.2
    smooth = functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)
    return [noise, smooth.clamp(0, 1)]


def _differences(ours: Inspection, theirs: dict[str, Any], defended: Defended) -> dict[str, float]:
    known = (ours.logits, ours.logits.softmax(1), ours.restored, ours.scores, ours.flagged)
    expected = {
        name: value.cpu().numpy()
        for name, value in zip(OUTPUTS, known, strict=True)
        if value is not None
    }
    if list(theirs) != list(expected):
        raise InputError("ONNX file", f"the outputs {list(expected)}", list(theirs))
    for name, value in expected.items():
        if theirs[name].shape != value.shape or theirs[name].dtype != value.dtype:
            wanted = f"{name} of {value.dtype} {value.shape}"
            raise InputError("ONNX file", wanted, f"{theirs[name].dtype} {theirs[name].shape}")
    threshold = None if defended.detector is None else defended.detector.threshold
    clear = np.ones(len(ours.logits), dtype=bool)
    scale = {"logits": max(1.0, float(np.abs(expected["logits"]).max()))}
    if "suspicion" in expected:
        scores = expected["suspicion"]
        scale["suspicion"] = max(float(np.abs(scores).max()), abs(threshold or 0.0)) or 1.0
        if threshold is not None:
            # On the threshold itself, rounding alone decides.
            clear = np.abs(scores - threshold) > TOLERANCE * scale["suspicion"]
    found = {}
    for name, value in expected.items():
        right, got = value.astype(np.float64), theirs[name].astype(np.float64)
        if name not in ("restored", "suspicion"):
            right, got = right[clear], got[clear]
        apart = np.abs(right - got)
        found[name] = float(apart.max()) / scale.get(name, 1.0) if apart.size else 0.0
    return found
