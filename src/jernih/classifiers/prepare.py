"""The same function with less work: batch norm folded into convolutions, activations in place."""

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

_COPYING = (nn.SiLU, nn.Hardswish, nn.Mish, nn.Hardsigmoid)
"""Activations whose gradient needs their input: in place, they copy it first."""


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


class _Clip(torch.autograd.Function):
    """Clamp in place and keep the outcome for the gradient.

    torch's own ``hardtanh_`` keeps a copy of its input, a fifth of the time of a MobileNetV2.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, low: float, high: float) -> Tensor:
        values.clamp_(low, high)
        ctx.mark_dirty(values)
        ctx.save_for_backward(values)
        ctx.range = low, high
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (clipped,) = ctx.saved_tensors
        gradient: Tensor = torch.ops.aten.hardtanh_backward(gradients[0], clipped, *ctx.range)
        return gradient, None, None


class _ClipInPlace(nn.Module):
    """ReLU6 and its like, as :class:`_Clip` does it."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, values: Tensor) -> Tensor:
        if not values.requires_grad:
            return values.clamp_(self.low, self.high)
        clipped: Tensor = _Clip.apply(values, self.low, self.high)
        return clipped


def spare_copies(network: nn.Module) -> nn.Module:
    """Replace activations that work in place only by keeping a copy, inside ``network``.

    Programs (TorchScript, traced graphs) are returned as they are.
    """
    if isinstance(network, (torch.jit.ScriptModule, fx.GraphModule)):
        return network
    for path, layer in list(network.named_modules()):
        if isinstance(layer, nn.Hardtanh) and layer.inplace and path:
            _replace(network, path, _ClipInPlace(layer.min_val, layer.max_val))
        elif isinstance(layer, _COPYING):
            layer.inplace = False
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
