"""A graph in 8-bit integers, and what that costs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from jernih.data.images import read_image
from jernih.data.modify import Prepare
from jernih.data.unlabelled import unlabelled_files
from jernih.export.graph import IMAGES, PARTS, quiet
from jernih.export.packages import need
from jernih.validate import InputError, check_images

LEAST = 10
CALIBRATED = 100
MEASURED = 200
"""Images: needed at least, used at most to set the ranges, used at most to measure the cost."""


def calibration_images(
    source: str | os.PathLike[str] | Tensor, prepare: Prepare
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """Images to set ranges with and others to measure the cost on, each (1, 3, H, W).

    Args:
        source: a folder, of whose images some are drawn at even distances, or images
            (N, 3, H, W) in [0, 1] that are of the model's size already.
        prepare: brings images of the folder to the model's size.

    Raises:
        InputError: for too few images, tensors of another size, and a file that cannot be read.
    """
    known: Sequence[Path] | Tensor
    if isinstance(source, Tensor):
        known = check_images(source, "calibrate")
        if tuple(known.shape[1:]) != (3, prepare.size, prepare.size):
            wanted = f"shape (N, 3, {prepare.size}, {prepare.size})"
            raise InputError("calibrate", wanted, tuple(known.shape))
    else:
        known = unlabelled_files(source, "calibrate")
    if len(known) < LEAST:
        raise InputError("calibrate", f"at least {LEAST} images", len(known))
    places = np.linspace(0, len(known) - 1, min(len(known), CALIBRATED + MEASURED)).astype(int)
    # Of three images one sets ranges and two measure, as long as that is within bounds.
    images = []
    for place in places:
        one = known[place]
        image = one if isinstance(one, Tensor) else prepare(read_image(one))
        images.append(image[None].numpy())
    ranges = images[::3][:CALIBRATED]
    rest = [image for place, image in enumerate(images) if place % 3]
    return ranges, rest[:MEASURED]


def quantise(proto: Any, images: Sequence[NDArray[np.float32]]) -> Any:
    """The graph with the purifier and the classifier in int8; the detector's arithmetic stays.

    Weights are symmetric with a scale for each channel, activations are unsigned with ranges from
    the least to the greatest value met (static quantisation).

    Args:
        proto: an ``onnx.ModelProto`` that :func:`jernih.export.graph.to_onnx` made.
        images: images that set the ranges, each (1, 3, H, W).
    """
    tools = need("onnxruntime.quantization", "onnx", "onnxruntime")
    with tempfile.TemporaryDirectory() as folder, quiet():
        prepared, written = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        # Fusions would take the names away by which the parts are known; they come later anyhow.
        tools.quant_pre_process(
            proto, str(prepared), skip_optimization=True, skip_symbolic_shape=True
        )
        onnx = need("onnx")
        kept = [
            node.name
            for node in onnx.load(str(prepared)).graph.node
            if not node.name.startswith(tuple(f"{part}/" for part in PARTS))
        ]
        tools.quantize_static(
            str(prepared),
            str(written),
            _reader(tools, images),
            quant_format=tools.QuantFormat.QDQ,
            per_channel=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            calibrate_method=tools.CalibrationMethod.MinMax,
            nodes_to_exclude=kept,
        )
        return onnx.load(str(written))


def _reader(tools: Any, images: Sequence[NDArray[np.float32]]) -> Any:
    class Reader(tools.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self.left, None)
            return None if image is None else {IMAGES: image}

    return Reader()


def measure_cost(
    whole: Any, reduced: Any, images: Sequence[NDArray[np.float32]], threshold: float | None
) -> dict[str, Any]:
    """What a reduced graph changes, on images that did not set its ranges.

    Args:
        whole: an ONNX Runtime session in float32.
        reduced: one in reduced precision.
        images: the images, each (1, 3, H, W).
        threshold: the detector's, if there is one.

    Returns:
        ``n``; ``same_class``, the share of images with the same class; ``largest_probability`` and
        ``mean_probability``, of the largest difference of each image's probabilities the largest
        and the mean; ``psnr`` and ``least_psnr`` in dB, of restored images against those in
        float32 (None where all are equal); with a detector ``suspicion``, the mean difference of
        the scores beside the mean score; with a threshold ``flagged``, the shares flagged in
        float32 and here.
    """
    names = [one.name for one in whole.get_outputs()]
    same, moved, decibels, apart, scores = [], [], [], [], []
    flags: list[tuple[bool, bool]] = []
    for image in images:
        ours, theirs = (
            dict(zip(names, session.run(None, {IMAGES: image}), strict=True))
            for session in (whole, reduced)
        )
        same.append(bool(ours["logits"].argmax() == theirs["logits"].argmax()))
        moved.append(float(np.abs(ours["probabilities"] - theirs["probabilities"]).max()))
        error = float(np.square(ours["restored"] - theirs["restored"], dtype=np.float64).mean())
        decibels.append(-10 * float(np.log10(error)) if error else float("inf"))
        if "suspicion" in ours:
            scores.append(float(np.abs(ours["suspicion"][0])))
            apart.append(float(np.abs(ours["suspicion"] - theirs["suspicion"])[0]))
        if threshold is not None:
            flags.append((bool(ours["flagged"][0]), bool(theirs["flagged"][0])))
    finite = [value for value in decibels if np.isfinite(value)]
    cost: dict[str, Any] = {
        "n": len(images),
        "same_class": float(np.mean(same)),
        "largest_probability": max(moved),
        "mean_probability": float(np.mean(moved)),
        "psnr": float(np.mean(finite)) if finite else None,
        "least_psnr": min(finite) if finite else None,
    }
    if scores:
        cost["suspicion"] = float(np.mean(apart)) / max(float(np.mean(scores)), 1e-30)
    if flags:
        cost["flagged"] = [float(share) for share in np.mean(flags, axis=0)]
    return cost
