"""A defended model as a folder, as the Hugging Face hub has them."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jernih import __version__
from jernih.classifiers import Classifier, load_classifier
from jernih.classifiers.load import PROGRAMS, refuse_code
from jernih.data.modify import Fit, Prepare
from jernih.defended import Defended
from jernih.detectors import DETECTORS, Calibration, Detector
from jernih.purifiers import PURIFIERS, Purifier
from jernih.randomness import seeded
from jernih.storage import atomic_path, read_json, write_json, write_text
from jernih.types import Policy
from jernih.validate import InputError
from jernih.weights import load_into, read_weights, write_tensors

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FORMAT = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Unit(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class _Classifier(_Part):
    name: str
    one_logit: bool = False
    options: dict[str, Any] = {}
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class _Calibration(_Part):
    threshold: float
    fpr: float
    n: int


class _Prepare(_Part):
    size: Annotated[int, Field(ge=8, le=4096)]
    fit: Fit


class _Description(_Part):
    """What config.json says."""

    format: Literal[1]
    jernih: str
    classifier: _Classifier
    purifier: _Unit
    detector: _Unit | None = None
    calibration: _Calibration | None = None
    policy: Policy = "restore"
    prepare: _Prepare | None = None
    card: dict[str, Any] = {}


def write_defended(defended: Defended, folder: str | os.PathLike[str]) -> Path:
    """Write a defended model to a folder, which :func:`read_defended` reads.

    ``config.json`` says how to make its parts again, ``model.safetensors`` has their tensors,
    ``README.md`` tells people what it is. A classifier that is a saved program is copied beside
    them. Whoever reads the folder meanwhile finds the old model or the new one's weights with the
    new config: the config comes last.

    Raises:
        InputError: for a classifier that does not say how it is made.
    """
    path = Path(folder).expanduser()
    classifier, detector = defended.classifier, defended.detector
    description = classifier.description
    if "name" not in description:
        raise InputError(
            "classifier",
            "one of load_classifier",
            "a network without a name",
            "pass its factory: load_classifier('package.module:factory', classes)",
        )
    name = str(description["name"])
    path.mkdir(parents=True, exist_ok=True)
    if Path(name).suffix in PROGRAMS:
        program = Path(name).expanduser()
        name = f"classifier{program.suffix}"
        if program.resolve() != (path / name).resolve():
            with atomic_path(path / name) as temporary:
                shutil.copyfile(program, temporary)
    parts: list[tuple[str, Mapping[str, Any]]] = [
        ("classifier", classifier.state_dict()),
        ("purifier", defended.purifier.state_dict()),
        ("detector", detector.learnt() if detector is not None else {}),
    ]
    tensors = {f"{part}.{key}": value for part, found in parts for key, value in found.items()}
    write_tensors(path / WEIGHTS, tensors)
    config = {
        "format": FORMAT,
        "jernih": __version__,
        "classifier": {
            **description,
            "name": name,
            "classes": list(classifier.classes),
            "mean": classifier.mean.flatten().tolist(),
            "std": classifier.std.flatten().tolist(),
        },
        "purifier": defended.purifier.describe(),
        "detector": None if detector is None else detector.describe(),
        "calibration": None
        if detector is None or detector.calibration is None
        else dataclasses.asdict(detector.calibration),
        "policy": defended.policy,
        "prepare": None
        if defended.prepare is None
        else {"size": defended.prepare.size, "fit": defended.prepare.fit},
        "card": defended.card,
    }
    if not (path / "README.md").exists():
        write_text(path / "README.md", _readme(defended))
    return write_json(path / CONFIG, config).parent


def read_defended(folder: str | os.PathLike[str], *, trust_code: bool = False) -> Defended:
    """Read a defended model that :func:`write_defended` wrote; in evaluation mode.

    Args:
        folder: the folder.
        trust_code: whether the classifier may come from a function of a Python module or from a
            saved program. Both run code that the folder chooses: allow it for folders of your own.

    Raises:
        InputError: for a folder that lacks a file, files that are damaged or do not belong
            together, and a classifier that needs code that is not trusted.
    """
    path = Path(folder).expanduser()
    if not (path / CONFIG).is_file():
        raise InputError("model", f"a folder with {CONFIG} and {WEIGHTS}", str(folder))
    try:
        config = _Description.model_validate(read_json(path / CONFIG))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "whole"
        message = f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}"
        raise InputError(f"{path / CONFIG}", "a defended model's settings", message) from None
    state = read_weights(path / WEIGHTS)
    source = str(path / WEIGHTS)
    classifier = _classifier(path, config.classifier, trust_code)
    load_into(classifier, _of(state, "classifier"), source=source)
    with seeded(0, "restore"):  # initial weights are drawn and then replaced
        purifier = PURIFIERS.create(config.purifier.name, **config.purifier.options)
    load_into(purifier, _of(state, "purifier"), source=source)
    detector = None
    if config.detector is not None:
        detector = DETECTORS.create(
            config.detector.name,
            classifier=classifier,
            purifier=purifier,
            **config.detector.options,
        )
        detector.restore_learnt(_of(state, "detector"))
        if config.calibration is not None:
            detector.calibration = Calibration(**config.calibration.model_dump())
    prepare = None if config.prepare is None else Prepare(config.prepare.size, config.prepare.fit)
    return Defended(
        classifier, purifier, detector, config.policy, prepare=prepare, card=config.card
    ).eval()


def _classifier(folder: Path, said: _Classifier, trust_code: bool) -> Classifier:
    if not trust_code:
        refuse_code(said.name, said.options)
    options: dict[str, Any] = said.model_dump()
    suffix = Path(said.name).suffix
    if suffix in PROGRAMS:
        if said.name != f"classifier{suffix}":
            raise InputError("classifier", f"classifier{suffix} in the folder", repr(said.name))
        options["name"] = str(folder / said.name)
    return load_classifier(**options)


def _of(state: Mapping[str, Any], part: str) -> dict[str, Any]:
    prefix = f"{part}."
    return {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}


def _readme(defended: Defended) -> str:
    """What a person who finds the folder should know."""
    classifier: Classifier = defended.classifier
    purifier: Purifier = defended.purifier
    detector: Detector | None = defended.detector
    title = str(defended.card.get("title") or f"{classifier.description['name']}, defended")
    sees = "any size"
    if defended.prepare is not None:
        sees = f"{defended.prepare.size} × {defended.prepare.size} px ({defended.prepare.fit})"
    rows = [
        ("classifier", f"`{classifier.description['name']}`, {len(classifier.classes)} classes"),
        ("purifier", f"`{purifier.name}`, runs before the classifier"),
        ("detector", f"`{detector.name}`" if detector else "none"),
        ("policy", f"`{defended.policy}`"),
        ("images", f"float32 (N, 3, H, W) in [0, 1], {sees}"),
    ]
    lines = [
        "---",
        "library_name: jernih",
        "tags: [image-classification, adversarial-robustness, model_hub_mixin]",
        "---",
        f"# {title}",
        "",
        "An image classifier behind a purifier, made with Jernih. It is a plain",
        "`torch.nn.Module`: images in [0, 1] → logits.",
        "",
        "```python",
        "from jernih import Defended",
        "",
        'defended = Defended.from_pretrained("this-folder-or-its-hub-id")',
        "logits = defended(images)",
        "```",
        "",
        "| part | |",
        "|-|-|",
        *(f"| {name} | {text} |" for name, text in rows),
        "",
    ]
    figures = defended.card.get("figures")
    if isinstance(figures, list) and figures:
        lines += [
            "## Measured",
            "",
            "| images | threat model | n | accuracy | 95 % interval |",
            "|-|-|-|-|-|",
        ]
        lines += [
            f"| {f['images']} | {f['threat']} | {f['n']} | {100 * f['accuracy']:.1f} % "
            f"| {100 * f['low']:.1f} to {100 * f['high']:.1f} % |"
            for f in figures
        ]
        lines.append("")
    return "\n".join(lines)
