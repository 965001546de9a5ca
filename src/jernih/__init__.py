"""Jernih makes attacked images clear again.

Attack an image classifier, detect attacked inputs, restore them with a purifier, and assess all
of it honestly. The names below are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

_HOMES = {
    "APGD": "jernih.attacks",
    "Assessment": "jernih.assess",
    "AssessmentPlan": "jernih.assess",
    "AutoAttack": "jernih.attacks",
    "Classifier": "jernih.classifiers",
    "ConvAutoencoder": "jernih.purifiers",
    "Defended": "jernih.defended",
    "FGSM": "jernih.attacks",
    "InputError": "jernih.validate",
    "PGD": "jernih.attacks",
    "Pipeline": "jernih.pipeline",
    "ReconstructionError": "jernih.detectors",
    "RunConfig": "jernih.config",
    "SkipVAE": "jernih.purifiers",
    "Square": "jernih.attacks",
    "UNet": "jernih.purifiers",
    "load_classifier": "jernih.classifiers",
    "load_config": "jernih.config",
}

__all__ = [*sorted(_HOMES), "__version__"]

if TYPE_CHECKING:
    from jernih.assess import Assessment, AssessmentPlan
    from jernih.attacks import APGD, FGSM, PGD, AutoAttack, Square
    from jernih.classifiers import Classifier, load_classifier
    from jernih.config import RunConfig, load_config
    from jernih.defended import Defended
    from jernih.detectors import ReconstructionError
    from jernih.pipeline import Pipeline
    from jernih.purifiers import ConvAutoencoder, SkipVAE, UNet
    from jernih.validate import InputError


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jernih' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
