"""Gradients of several values of each image, for attacks that compare classes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

TOGETHER = 2**20
"""Pixels whose gradients are asked for at once; more take more memory and are no faster."""


def gradients(values: Tensor, inputs: Tensor) -> Iterator[Tensor]:
    """Gradients of each column of ``values`` to the inputs, a few columns at a time.

    Args:
        values: (N, R), each row a differentiable function of its own row of ``inputs``.
        inputs: (N, C, H, W), a leaf that requires gradients.

    Yields:
        gradients (r, N, C, H, W) of the next r columns, in order; r is as many as are worth
        asking for at once. The graph is let go with the last ones.
    """
    count = values.shape[1]
    at_once = max(1, TOGETHER // inputs.numel())
    for start in range(0, count, at_once):
        stop = min(start + at_once, count)
        yield _some(values, inputs, range(start, stop), keep=stop < count)


def _some(values: Tensor, inputs: Tensor, columns: range, *, keep: bool) -> Tensor:
    if len(columns) > 1:
        picks = torch.zeros(len(columns), *values.shape, device=values.device, dtype=values.dtype)
        picks[range(len(columns)), :, columns] = 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # "no batching rule": slow, not wrong
                (many,) = torch.autograd.grad(
                    values, inputs, picks, is_grads_batched=True, retain_graph=True
                )
        except RuntimeError:  # an operation of the model cannot be batched: one after the other
            pass
        else:
            return many
    return torch.stack(
        [
            torch.autograd.grad(
                values[:, column].sum(), inputs, retain_graph=keep or column != columns[-1]
            )[0]
            for column in columns
        ]
    )
