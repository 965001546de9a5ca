"""A network's layers as a table."""

from __future__ import annotations

import copy

import torch
from torch import nn


def layer_summary(module: nn.Module, image_size: int, depth: int = 3) -> str:
    """The layers of a network with output shapes and parameter counts, as plain text.

    Args:
        module: takes images (N, 3, S, S); it stays as it is.
        image_size: S.
        depth: how deep to go into nested layers.
    """
    from torchinfo import summary

    total = sum(parameter.numel() for parameter in module.parameters())
    if total == 0:
        return f"{type(module).__name__}: no parameters"
    with torch.no_grad():
        twin = copy.deepcopy(module).eval()
        table = summary(
            twin,
            input_size=(1, 3, image_size, image_size),
            device=next(module.parameters()).device,
            col_names=("output_size", "num_params"),
            row_settings=("var_names",),
            depth=depth,
            verbose=0,
        )
    return f"{table}\nParameters in all: {total:,}"
