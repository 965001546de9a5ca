"""Grad-CAM: which areas of an image spoke for a class."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn

from jernih.classifiers import Classifier
from jernih.validate import InputError, check_choice, check_images, check_labels


def important_areas(
    classifier: Classifier,
    images: Tensor,
    targets: Tensor | None = None,
    layer: str | None = None,
) -> Tensor:
    """Grad-CAM maps (Selvaraju et al., arXiv:1610.02391).

    What is explained is the target's logit against the others together, log p/(1 − p), so that a
    network of one logit has a map for either class.

    Args:
        classifier: stays as it is.
        images: images (N, 3, H, W) in [0, 1].
        targets: the class to explain for each, int64 (N,); by default the predicted one.
        layer: name of a layer of the network that gives feature maps; by default the last that
            gives maps of more than one pixel.

    Returns:
        maps (N, H, W) in [0, 1], each scaled by its own maximum.

    Raises:
        InputError: for a network without feature maps or an unknown layer.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    images = check_images(images)
    twin = copy.deepcopy(classifier).eval()
    for module in twin.modules():
        if hasattr(module, "inplace"):  # what works in place cannot be looked at
            setattr(module, "inplace", False)  # noqa: B010 - modules have no such attribute for mypy
    names = dict(twin.network.named_modules())
    if layer is not None:
        check_choice("layer", layer, [name for name in names if name])
    else:
        layer = _last_maps(twin, images[:1])
    with torch.no_grad():
        predicted = twin(images).argmax(1)
    wanted = predicted if targets is None else check_labels(targets, len(images))
    explained = LayerGradCam(_Odds(twin), names[layer])
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.filterwarnings("ignore", message=".*full backward hook.*")
        found = explained.attribute(images, target=wanted, relu_attributions=True)
    maps: Tensor = LayerAttribution.interpolate(found, images.shape[-2:], "bilinear")
    maps = maps.detach().mean(1)
    return maps / maps.flatten(1).max(1).values.clamp_min(1e-12).view(-1, 1, 1)


class _Odds(nn.Module):
    """Each logit against the others together."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(images)
        own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
        others = logits[:, None, :].masked_fill(own, -torch.inf).logsumexp(2)
        return logits - others


def _last_maps(classifier: Classifier, image: Tensor) -> str:
    """The last layer that gives feature maps of more than one pixel."""
    found: list[str] = []
    handles = []
    for name, module in classifier.network.named_modules():
        if name and not any(True for _ in module.children()):

            def note(_: nn.Module, __: object, output: object, name: str = name) -> None:
                if isinstance(output, Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
                    found.append(name)

            handles.append(module.register_forward_hook(note))
    try:
        with torch.no_grad():
            classifier(image)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise InputError("classifier", "a network with feature maps", "none")
    return found[-1]
