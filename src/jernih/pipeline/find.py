"""Which defended model to deploy: the folder of a run, a saved model, or one of the hub."""

from __future__ import annotations

import os
from pathlib import Path

from jernih.cards import read_figures
from jernih.classifiers import restore_classifier
from jernih.config import load_config
from jernih.data.modify import Prepare
from jernih.defended import Defended
from jernih.detectors import DETECTORS, Calibration, Detector
from jernih.hub import CONFIG
from jernih.pipeline.model import LEARNT
from jernih.purifiers import restore_purifier
from jernih.storage import read_json
from jernih.validate import InputError
from jernih.weights import read_weights


def find_defended(
    model: str | os.PathLike[str], *, revision: str | None = None, trust_code: bool = False
) -> Defended:
    """The defended model that a folder or a hub's name stands for; in evaluation mode.

    Args:
        model: the folder of a run whose model stage is complete, a folder that ``jernih package``
            or ``Defended.save_pretrained`` wrote, or ``"owner/name"`` on the Hugging Face hub.
        revision: which revision of a hub's model.
        trust_code: as :func:`jernih.hub.read_defended` has it; a run of one's own needs none.

    Raises:
        InputError: for a folder that is neither, a run without a trained model, and a hub that
            does not have it or cannot be reached.
    """
    path = Path(model).expanduser()
    if (path / CONFIG).is_file():
        return Defended.from_pretrained(path, trust_code=trust_code)
    if (path / "config.yaml").is_file():
        return _of_run(path)
    parts = str(model).split("/")
    if path.exists() or len(parts) != 2 or not all(parts):
        raise InputError("model", "a run's folder, a packaged model or owner/name", str(model))
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Defended.from_pretrained(str(model), revision=revision, trust_code=trust_code)
    except InputError:
        raise
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError("model", "a folder, or a model that the hub has", model, reason) from None


def _of_run(path: Path) -> Defended:
    """The model that a run has made, from its files alone: its images need not be there."""
    config = load_config(path / "config.yaml")
    stages = path / "model"
    classifier_file = stages / "classifier" / "classifier.safetensors"
    purifier_file = stages / "purifier" / "purifier.safetensors"
    if not (classifier_file.is_file() and purifier_file.is_file()):
        raise InputError("model", "a run whose model stage is complete", path, "run it first")
    classifier = restore_classifier(classifier_file, trust_code=True)  # the run is one's own
    purifier = restore_purifier(purifier_file)
    detector: Detector | None = None
    choice = config.model.detector
    if choice is not None:
        folder = stages / "detector"
        if not (folder / "detector.json").is_file():
            raise InputError("model", "a run whose model stage is complete", path, "run it first")
        detector = DETECTORS.create(
            choice.name, classifier=classifier, purifier=purifier, **choice.options
        )
        if detector.learns:
            detector.restore_learnt(read_weights(folder / LEARNT))
        detector.calibration = Calibration(**read_json(folder / "detector.json")["calibration"])
    prepare = Prepare(config.modify.size, config.modify.fit)
    card = {"title": config.title, "figures": read_figures(path)}
    return Defended(
        classifier, purifier, detector, config.model.policy, prepare=prepare, card=card
    ).eval()
