"""From a name or a file to a :class:`Classifier`: timm models, one's own code, saved programs."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from jernih.classifiers.base import Classifier
from jernih.classifiers.torchvision_names import mobilenet_v2_names
from jernih.randomness import seeded
from jernih.validate import InputError, check_choice, nearest
from jernih.weights import load_into, read_card, read_weights, write_weights

PROGRAMS = (".pt", ".pth", ".ts", ".pt2")
"""Endings of saved programs."""

TIMM_FILES = ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay")
"""Options of timm that name files or addresses to read."""


def load_classifier(
    name: str,
    classes: Sequence[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    pretrained: bool = False,
    one_logit: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    options: dict[str, Any] | None = None,
    seed: int = 0,
    same_head: bool = False,
) -> Classifier:
    """Make the classifier that ``name`` stands for, in evaluation mode.

    Args:
        name: a timm model (``"mobilenetv2_100"``), a function of one's own that returns a
            network (``"package.module:factory"``), or a TorchScript (``.pt``, ``.ts``) or
            exported program (``.pt2``) file.
        classes: names of the classes in the order of the logits.
        weights: a safetensors file to load. For MobileNetV2, torchvision's key names are
            understood. A timm classification head of another size keeps its initial values.
        pretrained: fetch ImageNet weights from timm's hub (needs a network connection).
        one_logit: give a timm model one sigmoid logit instead of two (two classes only).
        mean: normalisation mean; by default what timm records for the model, else zeros.
        std: normalisation standard deviation; by default timm's, else ones.
        options: further keyword arguments for the timm model or the factory.
        seed: seed of the initial weights.
        same_head: refuse a timm model whose weights are for another number of classes, instead of
            leaving its head untrained.

    Raises:
        InputError: for an unknown model (with the nearest name), a factory that cannot be
            imported, weights that do not fit, or a hub that cannot be reached.
    """
    options = dict(options or {})
    if one_logit and len(classes) != 2:
        raise InputError("one_logit", "two classes", f"{len(classes)} classes")
    outputs = 1 if one_logit else len(classes)
    default_mean: Sequence[float] = (0.0, 0.0, 0.0)
    default_std: Sequence[float] = (1.0, 1.0, 1.0)
    head: str | None = None
    if Path(name).suffix in PROGRAMS:
        network = _program(Path(name).expanduser())
    elif ":" in name:
        with seeded(seed, "classifier"):
            network = _factory(name, options)
    else:
        with seeded(seed, "classifier"):
            network = _timm(name, outputs, pretrained, options)
        settings: dict[str, Any] = getattr(network, "pretrained_cfg", {})
        default_mean, default_std = settings["mean"], settings["std"]
        head = settings.get("classifier")
        if same_head and pretrained and settings.get("num_classes", outputs) != outputs:
            _refuse_head(settings["num_classes"], len(classes))
    if weights is not None:
        state = read_weights(weights)
        if state and all(key.startswith("network.") for key in state):
            state = {key.removeprefix("network."): value for key, value in state.items()}
        if name.startswith("mobilenetv2"):
            state = mobilenet_v2_names(state)
        stored = state.get(f"{head}.bias")
        if same_head and stored is not None and len(stored) != outputs:
            _refuse_head(len(stored), len(classes))
        load_into(
            network,
            state,
            source=str(weights),
            optional_prefix=head if isinstance(head, str) else None,
        )
    return Classifier(
        network,
        classes,
        mean=mean or default_mean,
        std=std or default_std,
        description={"name": name, "one_logit": one_logit, "options": options},
    ).eval()


def save_classifier(classifier: Classifier, path: str | os.PathLike[str]) -> Path:
    """Write a classifier's weights and what it takes to make it again to one safetensors file."""
    card = {
        **classifier.description,
        "classes": list(classifier.classes),
        "mean": classifier.mean.flatten().tolist(),
        "std": classifier.std.flatten().tolist(),
    }
    return write_weights(path, classifier, card)


def restore_classifier(path: str | os.PathLike[str], *, trust_code: bool = False) -> Classifier:
    """Load a classifier that :func:`save_classifier` wrote.

    Args:
        path: the file.
        trust_code: whether the file may name a function of a Python module or a saved program as
            its network. Both run code that the file chooses: allow it for files of your own.

    Raises:
        InputError: when the file is absent, damaged, or was not written by Jernih, and for a
            network that needs code that is not trusted.
    """
    state = read_weights(path)
    card = read_card(path)
    if not {"name", "classes"} <= card.keys() <= _CARD:
        raise InputError(f"weights {path}", "a file that save_classifier wrote", "another")
    if not trust_code:
        refuse_code(str(card["name"]), card.get("options") or {})
    classifier = load_classifier(**card)
    load_into(classifier, state, source=str(path))
    return classifier


_CARD = {"name", "classes", "one_logit", "options", "mean", "std"}


def refuse_code(name: str, options: Mapping[str, Any]) -> None:
    """Check that a network that a file names is timm's, and reads nothing but the file.

    Raises:
        InputError: for a function of a module, a saved program, and options that name other files.
    """
    if Path(name).suffix in PROGRAMS or ":" in name:
        raise InputError(
            "classifier",
            "a timm model",
            f"{name!r}, which runs code",
            "if it is your own or you know it, say trust_code=True (--trust-code)",
        )
    unsafe = next((option for option in TIMM_FILES if option in options), None)
    if unsafe is not None:
        raise InputError("classifier.options", "none that reads other files", repr(unsafe))


def _refuse_head(stored: int, given: int) -> NoReturn:
    expected = "1 logit for two classes" if stored == 1 else f"{stored} classes"
    raise InputError("classes", f"{expected}, as in the weights", given, "name them all, in order")


def _timm(name: str, outputs: int, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    import timm

    known = timm.list_models()
    if name not in known:
        like = nearest(name, known)
        raise InputError(
            "classifier",
            "a timm model, package.module:factory, or a .pt/.pt2 file",
            repr(name),
            f"nearest: {like!r}" if like else "",
        )
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=outputs, **options)
    except (OSError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        expected = "weights from timm's hub" if pretrained else "options that the model takes"
        hint = "give a local file as weights to work offline" if pretrained else ""
        raise InputError(f"classifier {name!r}", expected, reason, hint) from None
    if not isinstance(model, nn.Module):
        raise InputError(f"classifier {name!r}", "a torch.nn.Module", type(model).__name__)
    return model


def _factory(name: str, options: dict[str, Any]) -> nn.Module:
    module_name, _, function = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError("classifier", f"an importable module {module_name!r}", error) from None
    check_choice(f"function in {module_name}", function, [n for n in dir(module) if n[0] != "_"])
    try:
        network = getattr(module, function)(**options)
    except TypeError as error:
        raise InputError(f"classifier {name!r}", "options that the factory takes", error) from None
    if not isinstance(network, nn.Module):
        raise InputError(f"classifier {name!r}", "a torch.nn.Module", type(network).__name__)
    return network


class _Exported(nn.Module):
    """An exported program, which has one mode only and refuses to be asked for another."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program
        self.train(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.program(images)
        return logits

    def train(self, mode: bool = True) -> _Exported:
        for module in self.modules():
            module.training = False
        return self


def _program(path: Path) -> nn.Module:
    if not path.is_file():
        raise InputError("classifier", "an existing program file", str(path))
    try:
        if path.suffix == ".pt2":
            return _Exported(torch.export.load(path).module())
        with warnings.catch_warnings():
            # torch advises exporting instead; the file is the user's and is what it is.
            warnings.filterwarnings("ignore", message=".*torch.jit.load.*")
            network: nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # both loaders raise many kinds on foreign files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"classifier {path}", "a TorchScript or exported program", reason
        ) from None
    return network
