"""Grad-CAM: which areas of an image spoke for a class."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from jernih.classifiers import Classifier
from jernih.validate import InputError, check_images, check_logits, nearest

BATCH = 16
"""Images that pass the network at once."""

_NO_MAPS = (nn.Dropout, nn.Softmax)
"""Layers that change no map in evaluation, but that attention puts its square matrices through."""


def important_areas(
    classifier: Classifier,
    images: Tensor,
    targets: Tensor | None = None,
    layer: str | None = None,
) -> Tensor:
    """Where in the images the classifier found what speaks for a class.

    The channels of a layer's feature maps are summed, each weighted by the mean gradient of the
    class's score; what is negative is dropped and the rest enlarged to the size of the image. The
    score is the class's logit less the log of the summed exponentials of all others, the log of
    p / (1 − p): it tells two classes of one logit apart, where the first logit is always 0.
    Source: Selvaraju et al., arXiv:1610.02391.

    Args:
        classifier: the classifier; it stays as it is and is run in evaluation mode.
        images: images (N, 3, H, W) in [0, 1].
        targets: the class to ask about for each image, int64 (N,); by default the predicted one.
        layer: name of the module within ``classifier.network`` whose output (N, C, h, w) is
            looked at; by default the last to finish with such an output larger than 1 × 1. An
            output without the proportions of the image (tokens, channels last) does not count,
            so in a transformer it is often the first layer that is found.

    Returns:
        float32 (N, H, W) in [0, 1], each image scaled by its own maximum; all 0 where nothing
        speaks for the class.

    Raises:
        InputError: for images or targets of another kind, a network without feature maps
            (made of linear layers only, TorchScript, an exported program), an unknown layer, or
            one without feature maps.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
        >>> images = torch.rand(2, 3, 8, 8)
        >>> _ = network(images)
        >>> important_areas(Classifier(network, ["no", "yes"]), images).shape
        torch.Size([2, 8, 8])
    """
    images = check_images(images)
    if targets is not None:
        _check_targets(targets, len(images), len(classifier.classes))
    with torch.inference_mode(False):
        score = _Score(_copy(classifier))
        pixels = images.detach().clone()
        watched = _find_layer(score.classifier, pixels[:1], layer)
        parts = [
            _grad_cam(
                score,
                watched,
                pixels[start : start + BATCH],
                None if targets is None else targets[start : start + BATCH].to(pixels.device),
            )
            for start in range(0, len(pixels), BATCH)
        ]
    return torch.cat(parts)


class _Score(nn.Module):
    """The log odds of a class against all others."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor, targets: Tensor | None) -> Tensor:
        logits = check_logits(self.classifier(images), len(images))
        asked = (logits.argmax(1) if targets is None else targets).unsqueeze(1)
        others = logits.scatter(1, asked, -torch.inf).logsumexp(1)
        return logits.gather(1, asked).squeeze(1) - others


def _grad_cam(score: _Score, layer: nn.Module, images: Tensor, targets: Tensor | None) -> Tensor:
    from captum.attr import LayerAttribution, LayerGradCam

    maps: Tensor = LayerGradCam(score, layer).attribute(
        images, additional_forward_args=(targets,), relu_attributions=True
    )
    size = tuple(images.shape[-2:])
    areas: Tensor = LayerAttribution.interpolate(maps.detach(), size, "bilinear")
    areas = areas.squeeze(1).float()
    highest = areas.amax((1, 2), keepdim=True)
    return (areas / highest.where(highest > 0, 1)).clamp(0, 1)


def _copy(classifier: Classifier) -> Classifier:
    """A copy whose layers leave their inputs as they are, so that all of them can be looked at."""
    with torch.no_grad():  # TorchScript copies its parameters by an operation
        own = copy.deepcopy(classifier)
    own.eval().requires_grad_(False)
    for module in own.modules():
        if getattr(module, "inplace", False) is True:
            vars(module)["inplace"] = False
    return own


def _find_layer(classifier: Classifier, image: Tensor, name: str | None) -> nn.Module:
    modules: dict[str, nn.Module] = {
        found: module
        for found, module in classifier.network.named_modules(remove_duplicate=name is None)
        if found and not isinstance(module, torch.jit.ScriptModule)  # which takes no hooks
    }
    if name is None:
        watched = {f: module for f, module in modules.items() if not isinstance(module, _NO_MAPS)}
    elif name in modules:
        watched = {name: modules[name]}
    else:
        like = nearest(name, modules)
        hint = f"nearest: {like!r}" if like else ""
        raise InputError("layer", "the name of a module of the network", repr(name), hint)
    outputs = _last_outputs(classifier, image, watched)
    for found, output in reversed(outputs.items()):
        if _are_maps(output, image):
            return watched[found]
    wanted = "feature maps (N, C, h, w) larger than 1 × 1 with the proportions of the image"
    if name is None:
        raise InputError("classifier", f"a network with {wanted}", "one without")
    shape = tuple(getattr(outputs.get(name), "shape", ()))
    raise InputError(f"layer {name!r}", wanted, f"shape {shape}" if shape else "no such output")


def _last_outputs(
    classifier: Classifier, image: Tensor, modules: dict[str, nn.Module]
) -> dict[str, Any]:
    """What each module gave when it was last called, without the values, in this order."""
    outputs: dict[str, Any] = {}

    def note(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        outputs.pop(name, None)
        outputs[name] = output.to("meta") if isinstance(output, Tensor) else None

    hooks = [module.register_forward_hook(partial(note, name)) for name, module in modules.items()]
    try:
        with torch.no_grad():
            classifier(image)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


def _are_maps(output: Any, image: Tensor) -> bool:
    if not isinstance(output, Tensor) or output.ndim != 4 or not output.is_floating_point():
        return False
    height, width = image.shape[-2:]
    rows, columns = output.shape[-2:]
    # Rounding may take a row or two from one side of an oblong image and not from the other.
    slack = 0.0 if height == width else 2 / min(height, width)
    return len(output) == 1 and rows * columns > 1 and abs(rows / height - columns / width) <= slack


def _check_targets(targets: Tensor, count: int, classes: int) -> None:
    wanted = f"int64 class indices ({count},) in [0, {classes - 1}]"
    if not isinstance(targets, Tensor) or targets.dtype is not torch.int64:
        kind = targets.dtype if isinstance(targets, Tensor) else type(targets).__name__
        raise InputError("targets", wanted, str(kind))
    if tuple(targets.shape) != (count,):
        raise InputError("targets", wanted, f"shape {tuple(targets.shape)}")
    outside = targets[(targets < 0) | (targets >= classes)]
    if len(outside):
        raise InputError("targets", wanted, int(outside[0]))
