"""The same attacks in other libraries, for tests that compare; a library not installed skips."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn


def of_foolbox(
    name: str, model: nn.Module, images: Tensor, labels: Tensor, eps: float, **options: Any
) -> Tensor:
    """What ``foolbox.attacks.NAME`` makes of the images."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        foolbox = pytest.importorskip("foolbox")
        attack = getattr(foolbox.attacks, name)(**options)
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        made: Tensor = attack.run(wrapped, images, labels, epsilon=eps)
    return made.detach()


def of_torchattacks(
    name: str, model: nn.Module, images: Tensor, labels: Tensor, **options: Any
) -> Tensor:
    """What ``torchattacks.NAME`` makes of the images."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attack = getattr(pytest.importorskip("torchattacks"), name)(model, **options)
        made: Tensor = attack(images, labels)
    return made.detach()


def of_art(name: str, model: nn.Module, images: Tensor, labels: Tensor, **options: Any) -> Tensor:
    """What ``art.attacks.evasion.NAME`` makes of the images, all in one batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evasion = pytest.importorskip("art.attacks.evasion")
        classification = pytest.importorskip("art.estimators.classification")
        with torch.no_grad():
            classes = model(images[:1]).shape[1]
        wrapped = classification.PyTorchClassifier(
            model,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(images.shape[1:]),
            nb_classes=classes,
            clip_values=(0.0, 1.0),
            device_type="cpu",
        )
        # ART starts iterative attacks at random unless num_random_init is 0, its default.
        attack = getattr(evasion, name)(wrapped, batch_size=len(images), **options)
        return torch.from_numpy(attack.generate(images.numpy(), labels.numpy()))
