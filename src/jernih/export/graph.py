"""A defended model as one graph of tensor operations, and that graph in ONNX."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from jernih.defended import Defended
from jernih.export.packages import need
from jernih.export.translate import translations
from jernih.purifiers import Ensemble
from jernih.validate import InputError

IMAGES = "images"
OUTPUTS = ("logits", "probabilities", "restored", "suspicion", "flagged")
"""Outputs in order; the last two only with a detector and with its threshold."""


PARTS = ("purifier", "classifier", "squeezers")
"""What nodes' names begin with; those of the arithmetic between parts begin with ``defence``."""

_PART = re.compile(rf"defended\.(?:detector\.(?:parts\.\d+\.)?)?({'|'.join(PARTS)})\b")


class Graph(nn.Module):
    """What a defended model says of images, as a tuple of the first of :data:`OUTPUTS`."""

    def __init__(self, defended: Defended) -> None:
        super().__init__()
        self.defended = defended

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Answer for images (N, 3, H, W) in [0, 1]."""
        logits, restored, scores, flagged = self.defended.look(images)
        found = (logits, logits.softmax(1), restored, scores, flagged)
        return tuple(value for value in found if value is not None)


class _Score(nn.Module):
    """A detector alone, to find out whether it is what cannot be written."""

    def __init__(self, defended: Defended) -> None:
        super().__init__()
        self.detector = defended.detector

    def forward(self, images: Tensor) -> Tensor:
        """Score images as if they were restored to themselves."""
        if self.detector is None:
            return images
        return self.detector.score(images, images)


def to_onnx(defended: Defended, example: Tensor, *, opset: int, dynamic_batch: bool) -> Any:
    """The model as an ``onnx.ModelProto``.

    Args:
        defended: the model, in evaluation mode, on the CPU.
        example: images that it takes; with ``dynamic_batch`` two of them or more.
        opset: the version of ONNX's operators.
        dynamic_batch: whether any number of images may come at once.

    Raises:
        InputError: for a part that ONNX cannot express, by its name.
    """
    for module in defended.purifier.modules():
        if isinstance(module, Ensemble) and module.how == "random":
            _refuse("purifier", "a random ensemble")
    if any(isinstance(one, torch.jit.ScriptModule) for one in defended.classifier.modules()):
        name = defended.classifier.description.get("name", "its network")
        _refuse("classifier", f"{name}, TorchScript", "torch.export.save makes .pt2, which it can")
    try:
        return convert(Graph(defended), example, opset, dynamic_batch)
    except Exception as error:  # whatever tracing met in the model, or the exporter in its graph
        _name_the_part(defended, example, opset, dynamic_batch)
        _refuse("model", "this one as a whole", _reason(error))


def _name_the_part(defended: Defended, example: Tensor, opset: int, dynamic_batch: bool) -> None:
    """Refuse the part that cannot be written by itself, if there is one."""
    classifier, detector = defended.classifier, defended.detector
    parts: list[tuple[str, str, nn.Module]] = [
        ("purifier", repr(defended.purifier.name), defended.purifier),
        ("classifier", str(classifier.description.get("name", "its network")), classifier),
    ]
    if detector is not None:
        parts.append(("detector", repr(detector.name), _Score(defended)))
    for kind, name, part in parts:
        try:
            convert(part, example, opset, dynamic_batch)
        except Exception as error:
            _refuse(kind, name, _reason(error) if kind == "classifier" else "")


def _refuse(part: str, got: str, reason: str = "") -> NoReturn:
    raise InputError(part, "one that ONNX can express", got, reason) from None


def _reason(error: BaseException) -> str:
    """The first line of what lies at the bottom of an exporter's error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


def convert(module: nn.Module, example: Tensor, opset: int, dynamic_batch: bool) -> Any:
    """Any module from images to a tensor, or a :class:`Graph`, as an ``onnx.ModelProto``."""
    need("onnxscript", "onnx")
    outputs = OUTPUTS if isinstance(module, Graph) else ("output",)
    with quiet(), torch.no_grad():
        found = module.eval()(example)
        names = list(outputs[: len(found) if isinstance(found, tuple) else 1])
        batch = {0: torch.export.Dim("batch", min=1)} if dynamic_batch else None
        program = torch.onnx.export(
            module,
            (example,),
            input_names=[IMAGES],
            output_names=names,
            opset_version=opset,
            dynamo=True,
            dynamic_shapes=(batch,),
            custom_translation_table=translations(),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("the exporter gave nothing")
    proto = program.model_proto
    _name_nodes(proto)
    _strip(proto)
    return proto


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep exporters' remarks on their own workings from the user."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _name_nodes(proto: Any) -> None:
    """Put before each node's name the part of the model that it belongs to."""
    for node in proto.graph.node:
        where = " ".join(item.value for item in node.metadata_props if item.key == "namespace")
        found = _PART.search(where)
        node.name = f"{found[1] if found else 'defence'}/{node.name}"


def _strip(proto: Any) -> None:
    """Take out what the exporter notes of the code that it came by, paths of files among it."""
    del proto.metadata_props[:]
    proto.doc_string = ""
    graph = proto.graph
    for group in (graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        for item in group:
            item.doc_string = ""
            del item.metadata_props[:]
    del graph.metadata_props[:]
    for function in proto.functions:
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]
        del function.metadata_props[:]
