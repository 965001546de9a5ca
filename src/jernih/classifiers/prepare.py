"""Folding batch norm into convolutions, which gives the same function with less work."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

log = logging.getLogger(__name__)

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _LayerTracer(fx.Tracer):
    """Traces a network down to its layers; timm's batch norms with activation count as layers."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (*_CONVOLUTIONS, *_BATCH_NORMS)) or super().is_leaf_module(
            m, module_qualified_name
        )


class _AfterBatchNorm(nn.Sequential):
    """What a timm batch norm does after normalising: drop path and activation."""


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Fold each batch norm that directly follows a convolution into that convolution, in place.

    A pair is folded only where the network's graph shows that the batch norm is the one consumer
    of the convolution and that each of the two is used once. A network that cannot be traced
    (data-dependent control flow, TorchScript, exported programs) is returned as it is.

    Args:
        network: a network in evaluation mode with frozen parameters.

    Returns:
        the same network.
    """
    for convolution, norm in _foldable_pairs(network):
        norm_layer: Any = network.get_submodule(norm)
        convolution_layer: Any = network.get_submodule(convolution)
        fused: nn.Module = fuse_conv_bn_eval(convolution_layer, norm_layer)
        after = [
            part
            for part in (getattr(norm_layer, "drop", None), getattr(norm_layer, "act", None))
            if isinstance(part, nn.Module) and not isinstance(part, nn.Identity)
        ]
        _replace(network, convolution, fused.requires_grad_(False))
        _replace(network, norm, _AfterBatchNorm(*after) if after else nn.Identity())
    return network.eval()


def channels_last(module: nn.Module) -> nn.Module:
    """Lay the weights of convolutions out with channels last, in place: much faster on a CPU."""
    if any(parameter.ndim > 4 for parameter in module.parameters()):
        return module
    return module.to(memory_format=torch.channels_last)


def _foldable_pairs(network: nn.Module) -> list[tuple[str, str]]:
    if isinstance(network, (torch.jit.ScriptModule, fx.GraphModule)):
        return []
    try:
        graph = _LayerTracer().trace(network)
    except Exception as error:  # tracing runs the user's code with proxies: anything may be raised
        log.info("batch norm is left as it is, since the network cannot be traced: %s", error)
        return []
    layers = {node: str(node.target) for node in graph.nodes if node.op == "call_module"}
    uses = Counter(layers.values())
    pairs = []
    for node, name in layers.items():
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or before not in layers or len(before.users) != 1:
            continue
        norm = network.get_submodule(name)
        if (
            isinstance(norm, _BATCH_NORMS)
            and isinstance(norm.running_mean, Tensor)
            and isinstance(network.get_submodule(layers[before]), _CONVOLUTIONS)
            and uses[name] == uses[layers[before]] == 1
        ):
            pairs.append((layers[before], name))
    return pairs


def _replace(network: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, layer)
