"""A network's layers as a table."""

from __future__ import annotations

import copy
import itertools

import torch
from torch import nn


def layer_summary(module: nn.Module, image_size: int, depth: int = 3) -> str:
    """The layers of a model in the order in which an image passes them, as plain text.

    Each line has the layer's class and name, the shape of its output for one image, and the
    number of its parameters, in brackets where they are frozen. A dash stands for none, or for
    what is counted with a layer's parts. The shapes within TorchScript and exported programs
    cannot be had.

    Args:
        module: takes images (N, 3, S, S) in [0, 1]; it stays as it is.
        image_size: S.
        depth: how deep to go into layers made of layers.

    Raises:
        InputError: what the module itself raises for an image of this size.

    Example:
        >>> print(layer_summary(nn.Sequential(nn.Conv2d(3, 2, 3)), 8).splitlines()[-1])
        Parameters: 56
    """
    from torchinfo import summary
    from torchinfo.torchinfo import clear_cached_forward_pass

    with torch.no_grad():  # TorchScript copies its parameters by an operation
        own = copy.deepcopy(module).eval()
    tensors = itertools.chain(own.parameters(), own.buffers())
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    image = torch.full((1, 3, image_size, image_size), 0.5, device=device)
    try:
        found = summary(
            own,
            input_data=[image],
            depth=depth,
            col_names=("output_size", "num_params"),
            row_settings=("var_names",),
            verbose=0,
        )
    except RuntimeError as error:
        # torchinfo hides what the module raised behind an error of its own.
        raise error.__cause__ or error from None
    finally:
        clear_cached_forward_pass()  # it would keep the copy in memory
    total = sum(parameter.numel() for parameter in module.parameters())
    heading = found.formatting.header_row()
    rows = found.formatting.layers_to_str(found.summary_list, total)
    line = "─" * found.formatting.get_total_width() + "\n"
    return f"{heading}{line}{rows}{line}Parameters: {total:,}"
