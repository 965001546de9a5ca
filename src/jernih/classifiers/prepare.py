"""The same function with less work: batch norm folded, activations in place, fewer new tensors."""

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


class _ClippedThenConvolved(torch.autograd.Function):
    """Clamp in place, then convolve; the convolution's gradient is made that of the clamp in place.

    Between two nodes of a graph autograd may hold on to a gradient. This one was made here.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, layer: nn.Conv2d, low: float, high: float) -> Tensor:
        values.clamp_(low, high)
        ctx.save_for_backward(values)
        ctx.layer, ctx.range = layer, (low, high)
        convolved: Tensor = layer(values)
        return convolved

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (clipped,) = ctx.saved_tensors
        layer: nn.Conv2d = ctx.layer
        gradient: Tensor = torch.ops.aten.convolution_backward(
            gradients[0],
            clipped,
            layer.weight,
            None,
            layer.stride,
            layer.padding,
            layer.dilation,
            False,
            [0, 0],
            layer.groups,
            [True, False, False],
        )[0]
        backward = torch.ops.aten.hardtanh_backward
        try:
            gradient = backward.grad_input(gradient, clipped, *ctx.range, grad_input=gradient)
        except RuntimeError:  # many gradients at once, or one of a gradient: never in place
            gradient = backward(gradient, clipped, *ctx.range)
        return gradient, None, None, None


class _ClippedConvolution(nn.Module):
    """A convolution with the clamp before it, as :class:`_ClippedThenConvolved` does both."""

    def __init__(self, layer: nn.Conv2d, low: float, high: float) -> None:
        super().__init__()
        self.layer, self.low, self.high = layer, low, high

    def forward(self, values: Tensor) -> Tensor:
        learns = any(parameter.requires_grad for parameter in self.layer.parameters())
        if (
            values.requires_grad
            and not learns
            and not torch.is_autocast_enabled(values.device.type)
        ):
            joined: Tensor = _ClippedThenConvolved.apply(values, self.layer, self.low, self.high)
            return joined
        values = values.clamp(self.low, self.high) if learns else values.clamp_(self.low, self.high)
        convolved: Tensor = self.layer(values)
        return convolved


def join_clips(network: nn.Module) -> nn.Module:
    """Make one layer of a ReLU or ReLU6 between two convolutions and the later of them, in place.

    Saves a tensor for each. Only where the network's graph shows that the three follow each other,
    that nothing else makes use of what lies between them, and that the two joined are used once.
    Call it after :func:`fold_batch_norm`: a batch norm between them keeps them apart.

    Args:
        network: a network in evaluation mode with frozen parameters.

    Returns:
        the same network.
    """
    for clip, convolution in _joinable_pairs(network):
        layer: Any = network.get_submodule(clip)
        after: Any = network.get_submodule(convolution)
        low, high = (
            (0.0, float("inf")) if isinstance(layer, nn.ReLU) else (layer.min_val, layer.max_val)
        )
        _replace(network, convolution, _ClippedConvolution(after, low, high).eval())
        _replace(network, clip, nn.Identity())
    return network.eval()


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


def _trace(network: nn.Module) -> tuple[dict[fx.Node, str], Counter[str]]:
    """The layers in the network's graph by node, and how often each is used; none for programs."""
    if isinstance(network, (torch.jit.ScriptModule, fx.GraphModule)):
        return {}, Counter()
    try:
        graph = _LayerTracer().trace(network)
    except Exception as error:  # tracing runs the user's code with proxies: anything may be raised
        log.info("the network is left as it is, since it cannot be traced: %s", error)
        return {}, Counter()
    layers = {node: str(node.target) for node in graph.nodes if node.op == "call_module"}
    return layers, Counter(layers.values())


def _foldable_pairs(network: nn.Module) -> list[tuple[str, str]]:
    """Names of convolutions and of the batch norms that alone make use of them."""
    layers, uses = _trace(network)
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


def _joinable_pairs(network: nn.Module) -> list[tuple[str, str]]:
    """Names of clamps that follow a convolution alone, and of the convolutions after them."""
    layers, uses = _trace(network)

    def source(node: fx.Node) -> fx.Node | None:
        """The layer whose output alone goes into this one, through layers that do nothing."""
        before = node.args[0] if len(node.args) == 1 and not node.kwargs else None
        if not isinstance(before, fx.Node) or before not in layers or len(before.users) != 1:
            return None
        idle = isinstance(network.get_submodule(layers[before]), nn.Identity)
        return source(before) if idle else before

    pairs = []
    for node, name in layers.items():
        layer = network.get_submodule(name)
        clip = source(node)
        first = source(clip) if clip is not None else None
        if (
            clip is not None
            and first is not None
            and type(layer) is nn.Conv2d
            and layer.padding_mode == "zeros"
            and not isinstance(layer.padding, str)
            and isinstance(network.get_submodule(layers[clip]), (nn.ReLU, nn.Hardtanh))
            and isinstance(network.get_submodule(layers[first]), nn.Conv2d)
            and uses[name] == uses[layers[clip]] == 1
        ):
            pairs.append((layers[clip], name))
    return pairs


def _replace(network: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, layer)
