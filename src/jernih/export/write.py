"""A defended model as one ONNX file that anyone can run without Jernih."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from jernih import __version__
from jernih.data.modify import Prepare
from jernih.defended import Defended
from jernih.export.graph import quiet, to_onnx
from jernih.export.packages import need
from jernih.export.quantise import calibration_images, measure_cost, quantise
from jernih.export.read import FORMAT, start_session
from jernih.export.shuffles import transpose_shuffles
from jernih.export.verify import TOLERANCE, random_images, verify
from jernih.purifiers import UNet
from jernih.storage import atomic_path, to_json
from jernih.validate import InputError, check_choice, check_count

Precision = Literal["float32", "int8"]

OPSETS = (18, 23)
"""The versions of ONNX's operators that may be asked for."""

LARGEST = 2**31 - 2**24
"""Bytes of weights that fit one file, whose whole is bounded by 2 GiB."""


@dataclass(frozen=True)
class Exported:
    """An ONNX file that was written and verified.

    Attributes:
        path: the file.
        size: height and width of the images that it takes.
        bytes: its length.
        parity: the largest differences between the graph in float32 and the model, by output, and
            the number ``n`` of images compared.
        cost: for int8, what :func:`jernih.export.quantise.measure_cost` found.
    """

    path: Path
    size: int
    bytes: int
    parity: dict[str, Any]
    cost: dict[str, Any] | None = None

    def lines(self) -> list[str]:
        """What a person should know of it, line by line."""
        parity = {name: value for name, value in self.parity.items() if name != "n"}
        most = max(parity, key=lambda name: parity[name])
        told = [
            f"Verified on {self.parity['n']} images: differs from the model by at most "
            f"{parity[most]:.1g} ({most})"
        ]
        if self.cost is not None:
            cost = self.cost
            told.append(
                f"int8, on {cost['n']} images that did not set its ranges: the same class as in "
                f"float32 for {100 * cost['same_class']:.1f} %, probabilities moved by up to "
                f"{cost['largest_probability']:.3f} (mean {cost['mean_probability']:.3f})"
            )
            if cost["psnr"] is not None:
                told.append(
                    f"Restored images: {cost['psnr']:.1f} dB from those in float32 "
                    f"(least {cost['least_psnr']:.1f} dB)"
                )
            if "flagged" in cost:
                before, after = (100 * share for share in cost["flagged"])
                told.append(f"Flagged: {before:.1f} % in float32, {after:.1f} % in int8")
        told.append(f"File: {self.path} ({self.bytes / 2**20:.1f} MiB)")
        return told


def export_onnx(
    defended: Defended,
    path: str | os.PathLike[str],
    *,
    size: int | None = None,
    dynamic_batch: bool = True,
    opset: int = OPSETS[0],
    precision: Precision = "float32",
    calibrate: str | os.PathLike[str] | Tensor | None = None,
) -> Exported:
    """Write purifier, classifier and detector as one ONNX graph, and verify the file.

    The input ``images`` is float32 (N, 3, size, size) in [0, 1]. The outputs are ``logits`` and
    ``probabilities`` (N, K), ``restored`` (N, 3, size, size), with a detector ``suspicion`` (N,),
    and with its threshold ``flagged``, bool (N,). The policy is in the graph: under
    ``"restore-flagged"`` the logits are those of the restored image only where it is flagged, under
    ``"reject-flagged"`` those of a flagged image are not to be used. Normalisation is in the graph
    too. What else one needs to use the file is in its metadata, as JSON by key: ``classes``,
    ``preprocessing``, ``policy``, ``calibration``, ``classifier``, ``purifier``, ``detector``,
    ``card``, ``parity``, ``cost``, ``precision``, ``jernih``, ``format``. A purifier that computes
    in bfloat16 is written, and verified, in float32.

    Args:
        defended: the model, in evaluation mode; it stays as it is.
        path: the file to write, which ends in ``.onnx``. One that is there is replaced, once the
            new one has been verified.
        size: height and width of the images; None: what ``defended.prepare`` says.
        dynamic_batch: whether any number of images may come at once, or one alone.
        opset: version of ONNX's operators, in :data:`OPSETS`.
        precision: ``"float32"``, or ``"int8"``: smaller and on most processors faster, at a price
            that is measured and told.
        calibrate: for int8, a folder of images like those that the model will meet, or such
            images (N, 3, size, size) in [0, 1]: a third sets the ranges of the integers, the rest
            tells the price.

    Raises:
        InputError: for arguments out of range, a part that ONNX cannot express, a model of more
            than 2 GB, and a graph whose answers are not the model's to within
            :data:`jernih.export.verify.TOLERANCE`: then nothing is written.
        OSError: when the file cannot be written.
    """
    target = Path(path).expanduser()
    if target.suffix != ".onnx" or target.is_dir():
        raise InputError("path", "a file name that ends in .onnx", str(path))
    check_choice("precision", precision, get_args(Precision))
    if not OPSETS[0] <= check_count("opset", opset) <= OPSETS[1]:
        raise InputError("opset", f"{OPSETS[0]} to {OPSETS[1]}", opset)
    if (precision == "int8") != (calibrate is not None):
        wanted = "images for int8" if precision == "int8" else "none for float32"
        raise InputError("calibrate", wanted, "none" if calibrate is None else "some")
    if defended.training:
        raise InputError("defended", "evaluation mode (call .eval())", "training mode")
    defended = _in_float32(defended)
    side = _side(defended, size)
    _check_weight(defended)
    onnx = need("onnx", "onnxruntime", "onnxscript")
    batches = (1, 3) if dynamic_batch else (1,)
    example = random_images(2 if dynamic_batch else 1, side)[0]
    _check_takes(defended, example)
    fit = "stretch" if defended.prepare is None else defended.prepare.fit
    images = None if calibrate is None else calibration_images(calibrate, Prepare(side, fit))

    with quiet():
        ready = defended.frozen().cpu()
    if precision == "float32":  # ONNX Runtime has no transposed convolution in integers
        transpose_shuffles(ready.purifier)
    proto = to_onnx(ready, example, opset=opset, dynamic_batch=dynamic_batch)
    whole = start_session(proto.SerializeToString())
    parity = verify(whole, defended, side, batches)
    cost = None
    if images is not None:
        proto = quantise(proto, images[0])
        reduced = start_session(proto.SerializeToString())
        threshold = None if defended.detector is None else defended.detector.threshold
        found = measure_cost(whole, reduced, images[1], threshold)
        cost = {"calibrated_on": len(images[0]), **found}
    _describe(proto, _metadata(defended, side, precision, parity, cost))
    with atomic_path(target) as temporary:
        temporary.write_bytes(proto.SerializeToString())
        onnx.checker.check_model(str(temporary), full_check=True)
        # In int8 the answers differ, by what cost says, but shapes and numbers must be right.
        tolerance = TOLERANCE if cost is None else math.inf
        verify(start_session(str(temporary)), defended, side, batches, tolerance)
    return Exported(target, side, target.stat().st_size, parity, cost)


def _in_float32(defended: Defended) -> Defended:
    """The model, or where its purifier computes in another precision a copy that does not."""
    if not any(_reduced(part) for part in defended.purifier.modules()):
        return defended
    exact = copy.deepcopy(defended)
    for part in exact.purifier.modules():
        if isinstance(part, UNet):
            part.precision = "float32"
            part.options["precision"] = "float32"
    return exact


def _reduced(part: nn.Module) -> bool:
    return isinstance(part, UNet) and part.precision != "float32"


def _side(defended: Defended, size: int | None) -> int:
    if size is None and defended.prepare is None:
        raise InputError("size", "height and width of the images", "none", "the model says none")
    if size is None and defended.prepare is not None:
        return defended.prepare.size
    return check_count("size", size or 0, 8)


def _check_weight(defended: Defended) -> None:
    tensors = {id(value): value for value in defended.state_dict().values()}
    held = sum(value.numel() * value.element_size() for value in tensors.values())
    if held > LARGEST:
        raise InputError("model", "at most 2 GB of weights", f"{held / 2**30:.1f} GB")


def _check_takes(defended: Defended, example: Tensor) -> None:
    """Ask once, so that a model that cannot answer says why in its own words."""
    example = example.to(defended.classifier.mean.device)
    try:
        defended.inspect(example)
    except InputError:
        raise
    except Exception as error:  # the user's own network may raise anything
        if len(example) > 1:
            _check_takes(defended, example[:1])
            wanted = "False (--one-image), since the model takes one image at a time"
            raise InputError("dynamic_batch", wanted, "True") from None
        reason = str(error).strip().splitlines() or [type(error).__name__]
        shape = f"images {tuple(example.shape)}"
        raise InputError("size", "one that the model takes", shape, reason[0][:200]) from None


def _metadata(
    defended: Defended,
    size: int,
    precision: str,
    parity: dict[str, Any],
    cost: dict[str, Any] | None,
) -> dict[str, Any]:
    classifier, detector = defended.classifier, defended.detector
    calibration = None if detector is None else detector.calibration
    return {
        "format": int(FORMAT),
        "jernih": __version__,
        "torch": str(torch.__version__),
        "classes": list(classifier.classes),
        "preprocessing": {
            "size": size,
            "fit": None if defended.prepare is None else defended.prepare.fit,
            "resize": "bilinear, antialiased",
            "range": [0, 1],
            "channels": "RGB",
            "layout": "NCHW",
            "normalisation": "in the graph",
        },
        "policy": defended.policy,
        "calibration": None if calibration is None else dataclasses.asdict(calibration),
        "classifier": classifier.description.get("name"),
        "purifier": defended.purifier.describe(),
        "detector": None if detector is None else detector.describe(),
        "precision": precision,
        "parity": parity,
        "cost": cost,
        "card": defended.card,
    }


def _describe(proto: Any, metadata: dict[str, Any]) -> None:
    proto.producer_name, proto.producer_version = "jernih", __version__
    proto.graph.name = "defended"
    proto.doc_string = (
        "An image classifier behind a purifier. Input: images, float32 (N, 3, H, W) in [0, 1], RGB."
    )
    del proto.metadata_props[:]
    for key, value in metadata.items():
        # Through to_json, which writes what JSON lacks (NaN) as null, and tuples as lists.
        text = json.dumps(json.loads(to_json(value)), ensure_ascii=False)
        proto.metadata_props.add(key=key, value=text)
