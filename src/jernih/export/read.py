"""A defended model in ONNX, asked through ONNX Runtime."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from jernih.data.modify import Fit, Prepare
from jernih.export.packages import need
from jernih.validate import RANGE_TOLERANCE, InputError, check_count

INPUT = "images"
FORMAT = "1"
"""Of the metadata; what reads a file refuses another."""


def start_session(
    model: str | bytes, threads: int | None = None, providers: Sequence[str] | None = None
) -> Any:
    """An ``onnxruntime.InferenceSession`` that keeps its remarks to itself.

    Raises:
        InputError: for what is no model in ONNX, or one that this version cannot run.
    """
    runtime = need("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    if threads is not None:
        options.intra_op_num_threads = check_count("threads", threads)
    try:
        return runtime.InferenceSession(
            model, options, providers=list(providers or ["CPUExecutionProvider"])
        )
    except Exception as error:  # the runtime has a class of its own for every way to fail
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError("ONNX file", "a model that ONNX Runtime can run", lines[0][:200]) from None


class OnnxDefended:
    """A file that :func:`jernih.export.export_onnx` wrote, ready to be asked.

    Args:
        path: the file.
        threads: how many threads one call uses; None: as many as there are cores.
        providers: execution providers of ONNX Runtime, most wanted first; None: the CPU.

    Attributes:
        classes: names of the classes in the order of the logits.
        size: height and width of the images that it takes.
        batch: how many images it takes at once; None for any number.
        prepare: brings an image (3, H, W) of any size to what the model takes; None where the file
            does not say how.
        policy, threshold: as the defended model had them; ``threshold`` is None where there is
            none.
        precision: ``"float32"`` or ``"int8"``.
        metadata: all else that the file says, among it ``calibration``, ``card``, ``parity`` and,
            for reduced precision, ``cost``.

    Raises:
        InputError: for a file that is absent, damaged, or not written by Jernih, and where
            ONNX Runtime is not installed.

    Example:
        >>> model = OnnxDefended("model.onnx")  # doctest: +SKIP
        >>> model(np.zeros((1, 3, *model.size), np.float32))["logits"].shape  # doctest: +SKIP
        (1, 2)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
    ) -> None:
        file = Path(path).expanduser()
        if not file.is_file():
            raise InputError("ONNX file", "an existing file", str(path))
        self._session = start_session(str(file), threads, providers)
        said = self._session.get_modelmeta().custom_metadata_map
        if said.get("format") != FORMAT or "classes" not in said:
            raise InputError("ONNX file", "one that jernih export wrote", str(path))
        try:
            self.metadata: dict[str, Any] = {key: json.loads(said[key]) for key in said}
        except ValueError:
            raise InputError("ONNX file", "metadata as jernih export writes it", path) from None
        self.classes: tuple[str, ...] = tuple(self.metadata["classes"])
        self.policy: str = self.metadata["policy"]
        self.precision: str = self.metadata["precision"]
        calibration = self.metadata.get("calibration")
        self.threshold: float | None = calibration["threshold"] if calibration else None
        batch, _, height, width = self._session.get_inputs()[0].shape
        self.batch: int | None = batch if isinstance(batch, int) else None
        self.size: tuple[int, int] = (height, width)
        fit = self.metadata["preprocessing"]["fit"]
        self.prepare = Prepare(height, fit) if fit in get_args(Fit) else None
        self.outputs: tuple[str, ...] = tuple(one.name for one in self._session.get_outputs())

    def __call__(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Answer for images.

        Args:
            images: float32 (N, 3, H, W) in [0, 1], red, green and blue, of the file's size.

        Returns:
            ``logits`` and ``probabilities`` (N, K), ``restored`` (N, 3, H, W); with a detector
            ``suspicion`` (N,), and with its threshold ``flagged``, bool (N,).

        Raises:
            InputError: for images of another type, shape or range.
        """
        answers = self._session.run(None, {INPUT: self._checked(images)})
        return dict(zip(self.outputs, answers, strict=True))

    def _checked(self, images: Any) -> NDArray[np.float32]:
        if not isinstance(images, np.ndarray):
            raise InputError("images", "a NumPy array", type(images).__name__)
        if images.dtype != np.float32:
            raise InputError("images", "dtype float32", str(images.dtype), "values in [0, 1]")
        shape = ("N" if self.batch is None else self.batch, 3, *self.size)
        fits = images.ndim == 4 and images.shape[1:] == shape[1:]
        if not fits or len(images) == 0 or self.batch not in (None, len(images)):
            raise InputError("images", f"shape ({', '.join(map(str, shape))})", images.shape)
        low, high = float(images.min()), float(images.max())
        # Written so that NaN, which is neither inside nor outside, is refused too.
        if not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):
            raise InputError("images", "finite values in [0, 1]", f"from {low:.4g} to {high:.4g}")
        return np.ascontiguousarray(images.clip(0, 1))
