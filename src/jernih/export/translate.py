"""Operations that torch's exporter lacks in ONNX, or translates so that they lose digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from jernih.export.packages import need


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """ONNX functions by the operation of torch that they stand for."""
    op: Any = need("onnxscript").opset18

    def logaddexp(first: Any, second: Any) -> Any:
        """As the exporter has it, both exponentials may vanish and leave no number at all."""
        apart = op.Exp(op.Neg(op.Abs(op.Sub(first, second))))
        return op.Add(op.Max(first, second), op.Log(op.Add(apart, op.CastLike(1.0, apart))))

    def median(values: Any, dim: int, keepdim: bool = False) -> tuple[Any, Any]:
        """The lower median, as torch has it: the largest of the smaller half."""
        half = (int(values.shape[dim]) - 1) // 2
        smallest, places = op.TopK(values, op.Constant(value_ints=[half + 1]), axis=dim, largest=0)
        at = op.Constant(value_ints=[half]) if keepdim else op.Constant(value_int=half)
        return op.Gather(smallest, at, axis=dim), op.Gather(places, at, axis=dim)

    return {
        torch.ops.aten.logaddexp.default: logaddexp,
        torch.ops.aten.median.dim: median,
    }
