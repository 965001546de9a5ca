"""The settings of a run: one pydantic model, its defaults the embedded demonstration.

A config file is YAML with the same keys. Units that have options of their own (data source,
attack, purifier, detector) are written as a mapping of ``name`` and those options.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from jernih.attacks import ATTACKS, UNBOUNDED
from jernih.data.sources import SOURCES
from jernih.detectors import DETECTORS
from jernih.harmless import HARMLESS
from jernih.purifiers import PURIFIERS, Ensemble
from jernih.purifiers.ensemble import read_members
from jernih.storage import parse_yaml
from jernih.types import Knowledge, Labels, Policy
from jernih.validate import InputError, nearest, parse_eps

Epsilon = Annotated[float, BeforeValidator(functools.partial(parse_eps, most=UNBOUNDED))]
Share = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A part of the config that knows all of its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Unit(BaseModel):
    """A registered unit: its name, and beside it the options of its constructor."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The options beside the name."""
        return dict(self.model_extra or {})


class Split(Section):
    """Which share of the images serves which purpose, where the data does not say."""

    test: Share = 0.2
    val: Share = 0.1
    stratify: bool = True
    limit: dict[Literal["train", "val", "test"], Annotated[int, Field(ge=1)]] = {}


class Sample(Section):
    """Where the images come from."""

    source: Unit = Unit(name="phantom")
    split: Split = Split()


class Explore(Section):
    """What to look for in the images, and what to do about unequal classes."""

    drop: tuple[str, ...] | None = None
    keep: tuple[Literal["train", "val", "test"], ...] = ()
    imbalance: Literal["weights", "augment", "none"] = "weights"


class Modify(Section):
    """How images are prepared and varied.

    ``crops`` are sides of random squares to train on by the epoch from which on they hold.
    """

    size: Annotated[int, Field(ge=8, le=2048)] = 224
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    rotation: Annotated[float, Field(ge=0, le=180)] = 15.0
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5
    zoom: tuple[float, float] = (0.9, 1.1)
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.2
    crops: dict[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=8)]] | None = None

    @model_validator(mode="after")
    def _crops_begin(self) -> Self:
        if self.crops is not None and 0 not in self.crops:
            raise ValueError("crops need a side for epoch 0")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_usual(self, serialise: SerializerFunctionWrapHandler) -> Any:
        """Runs finished before there were crops stay finished."""
        return _less(serialise(self), crops=self.crops is None)


def _less(plain: dict[str, Any], **usual: bool) -> dict[str, Any]:
    """Settings without those that are as they were before they existed."""
    return {name: value for name, value in plain.items() if not usual.get(name)}


class Training(Section):
    """How to train a network; ``ema`` is the decay, a step, of a running average of the weights.

    With it the average is what is validated and kept.
    """

    epochs: Annotated[int, Field(ge=1)] = 10
    batch_size: Annotated[int, Field(ge=1)] = 32
    optimizer: Literal["adam", "adamw", "adamax", "sgd"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    gradient_clip: Annotated[float, Field(gt=0)] | None = 1.0
    patience: Annotated[int, Field(ge=1)] = 5
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    schedule: Literal["constant", "cosine"] = "constant"
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    workers: Annotated[int, Field(ge=0)] = 0

    @model_serializer(mode="wrap")
    def _without_what_is_usual(self, serialise: SerializerFunctionWrapHandler) -> Any:
        """Runs finished before there were schedules and averages stay finished."""
        return _less(serialise(self), schedule=self.schedule == "constant", ema=self.ema is None)


class AdversarialMix(Section):
    """Attacked images in the training of the classifier."""

    attack: Unit = Unit.model_validate({"name": "pgd", "eps": "4/255", "steps": 5})
    share: Annotated[float, Field(gt=0, le=1)] = 0.5


class Guidance(Section):
    """What the training of a purifier weighs, and whom it trains against.

    ``through`` is an attack made through purifier and classifier, for a ``through_share`` of the
    batches, each with one of the bounds; that share of the validation loss comes from the same
    attack at the largest bound. ``labels`` says what attacks are told of each image: its true
    class, or what the classifier makes of it, which leaks no label. ``unlabelled`` is a folder of
    further images to train with, which asks for predicted labels. ``layers`` weighs the maps of so
    many convolutions of the classifier, evenly spread. ``epsilons`` are bounds to train with
    instead of the model's, ``attacks`` further attacks, of which each batch gets one or the
    model's, and validation all. With ``balanced`` each class is drawn as often as the others: else
    a net trained against its attacker learns to save the commonest class. Before epoch ``since``
    the training weighs pixels alone, which teaches the network to let images pass; epochs are
    validated by the whole loss from the first on. Before epoch ``recognise`` a purifier that has
    features of the image as a whole learns, against the attack ``through`` made on them and a
    linear layer, to tell the label by them, and to give the image back; it takes no pass through
    the classifier and gives attacks through both a start that holds. The layer goes on learning
    beside the rest, and is not kept.
    """

    pixel: Literal["mse", "l1", "charbonnier", "ms-ssim"] = "mse"
    pixel_weight: Annotated[float, Field(ge=0)] = 200.0
    logits: Annotated[float, Field(ge=0)] = 1.0
    features: Annotated[float, Field(ge=0)] = 0.0
    layers: Annotated[int, Field(ge=0)] = 0
    layers_weight: Annotated[float, Field(ge=0)] = 1.0
    epsilons: tuple[Epsilon, ...] | None = None
    attacks: tuple[Unit, ...] = ()
    since: Annotated[int, Field(ge=0)] = 0
    labels: Labels = "true"
    through: Unit | None = None
    through_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    unlabelled: str | None = None
    balanced: bool = False
    recognise: Annotated[int, Field(ge=0)] = 0

    @model_serializer(mode="wrap")
    def _without_what_is_usual(self, serialise: SerializerFunctionWrapHandler) -> Any:
        """Runs finished before there was balancing or recognising stay finished."""
        return _less(serialise(self), balanced=not self.balanced, recognise=not self.recognise)

    @model_validator(mode="after")
    def _labels_are_there(self) -> Self:
        if self.unlabelled is not None and self.balanced:
            raise ValueError("unlabelled images have no class to balance by: leave out one of both")
        if self.unlabelled is not None and self.labels == "true":
            raise ValueError("unlabelled images have no true labels: set labels to predicted")
        if self.recognise and self.through is None:
            raise ValueError("recognise needs an attack to learn against: set through")
        if self.since and not self.pixel_weight:
            raise ValueError(
                "before epoch since pixels alone are weighed: pixel_weight must not be 0"
            )
        return self


class OtherPurifier(Section):
    """A purifier to compare with the run's own; training of null means: the same as there."""

    purifier: Unit
    training: Training | None = None
    weights: str | None = None


class ClassifierChoice(Section):
    """Which classifier to defend."""

    name: str = "test_efficientnet"
    weights: str | None = None
    pretrained: bool = False
    one_logit: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    options: dict[str, Any] = {}


class Model(Section):
    """Classifier, attack, purifier and detector; training settings of null mean: take as it is.

    ``purifier_weights`` are taken as they are; with ``purifier_start`` the training begins. Both
    are files, or names of weights that come with the package. Detectors are to let changes pass
    that are ``harmless``: they are fitted and calibrated with images so changed, too.
    """

    classifier: ClassifierChoice = ClassifierChoice()
    classifier_training: Training | None = Training(
        epochs=10, batch_size=16, lr=3e-3, optimizer="adamw"
    )
    adversarial_training: AdversarialMix | None = None
    attack: Unit = Unit(name="fgsm")
    epsilons: Annotated[tuple[Epsilon, ...], Field(min_length=1)] = (0.01, 0.03, 0.05)
    purifier: Unit = Unit.model_validate({"name": "conv-autoencoder", "widths": [16, 32]})
    purifier_weights: str | None = None
    purifier_start: str | None = None
    purifier_training: Training | None = Training(epochs=10, batch_size=16)
    clean_share: Share = 0.25
    guidance: Guidance | None = None
    attack_once: bool = False
    others: dict[str, OtherPurifier] = {}
    detector: Unit | None = Unit(name="reconstruction-error")
    fpr: Annotated[float, Field(gt=0, lt=1)] = 0.05
    harmless: tuple[Unit, ...] = ()
    policy: Policy = "restore"

    @model_validator(mode="after")
    def _flags_are_there(self) -> Self:
        if self.policy != "restore" and self.detector is None:
            raise ValueError("a policy that goes by flags needs a detector")
        if self.purifier_start is not None and self.purifier_weights is not None:
            raise ValueError("either purifier_weights to take or purifier_start to train from")
        return self


class SurveyChoice(Section):
    """A further measurement of accuracies alone, beside the full assessment.

    Its attacks lead away from the true ``labels``, or from those ``predicted``: attacks of one
    step tell the true ones to the purifier.
    """

    title: Annotated[str, Field(min_length=1)]
    attack: Unit = Unit(name="fgsm")
    epsilons: Annotated[tuple[Epsilon, ...], Field(min_length=1)]
    knowledge: Annotated[tuple[Knowledge, ...], Field(min_length=1)] = ("oblivious",)
    others: bool = False
    limit: Annotated[int, Field(ge=1)] | None = None
    labels: Labels = "true"


class DetectionAttack(Section):
    """An attack on the classifier alone, and its bounds."""

    attack: Unit = Unit(name="fgsm")
    epsilons: Annotated[tuple[Epsilon, ...], Field(min_length=1)]


class DetectionSurveyChoice(Section):
    """Several detectors compared on attacks that none was fitted to, and on harmless changes.

    They are fitted and calibrated like the model's own, at its ``fpr``.
    """

    title: Annotated[str, Field(min_length=1)]
    detectors: Annotated[dict[str, Unit], Field(min_length=1)]
    attacks: tuple[DetectionAttack, ...] = ()
    harmless: tuple[Unit, ...] = ()
    limit: Annotated[int, Field(ge=1)] | None = None


class WantedRecall(Section):
    """A class that must not be missed, and the share of it that has to be found."""

    positive: str
    recall: Annotated[float, Field(gt=0, le=1)] = 0.98


class PublishedFigure(Section):
    """A figure of a publication, and where its counterpart is in the assessment."""

    figure: str
    value: float
    measure: Literal[
        "accuracy", "right", "wrong", "precision", "recall", "f1", "confusion", "mse", "psnr"
    ]
    which: Literal["clean", "attacked", "restored", "clean through purifier"] = "clean"
    eps: Epsilon | None = None
    label: str | None = None
    predicted: str | None = None


class Published(Section):
    """What a publication says, to be laid beside what this run measures."""

    study: str
    n: int | None = None
    attack: str = "fgsm"
    figures: Annotated[tuple[PublishedFigure, ...], Field(min_length=1)]
    nearest: float | None = None
    notes: tuple[str, ...] = ()


class Assess(Section):
    """How to assess the defended model.

    Attackers who know a random purifier climb the mean of so many ``draws`` at every step.
    """

    knowledge: Annotated[tuple[Knowledge, ...], Field(min_length=1)] = ("oblivious", "adaptive")
    batch_size: Annotated[int, Field(ge=1)] = 32
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    surveys: tuple[SurveyChoice, ...] = ()
    detection: tuple[DetectionSurveyChoice, ...] = ()
    wanted_recall: WantedRecall | None = None
    draws: Annotated[int, Field(ge=1)] = 1

    @model_serializer(mode="wrap")
    def _without_what_is_usual(self, serialise: SerializerFunctionWrapHandler) -> Any:
        """Runs finished before there were detection surveys and draws stay finished."""
        return _less(serialise(self), detection=not self.detection, draws=self.draws == 1)


class RunConfig(Section):
    """All settings of a run; the defaults are the embedded demonstration on phantoms."""

    title: str = "Synthetic chest radiographs (embedded default)"
    out: str = "runs/phantom"
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    sample: Sample = Sample()
    explore: Explore = Explore()
    modify: Modify = Modify()
    model: Model = Model()
    assess: Assess = Assess()
    published: Published | None = None

    def check_units(self) -> None:
        """Check the names and option names of all units before any work is done.

        Raises:
            InputError: for an unknown one, with the nearest known.
        """
        SOURCES.check(self.sample.source.name, self.sample.source.options)
        model = self.model
        attacks = [("model", model.attack, model.epsilons)]
        attacks += [
            (f"assess.surveys.{place}", survey.attack, survey.epsilons)
            for place, survey in enumerate(self.assess.surveys)
        ]
        attacks += [
            (f"assess.detection.{place}.attacks.{number}", choice.attack, choice.epsilons)
            for place, survey in enumerate(self.assess.detection)
            for number, choice in enumerate(survey.attacks)
        ]
        if model.adversarial_training is not None:
            attacks.append(("model.adversarial_training", model.adversarial_training.attack, ()))
        if model.guidance is not None:
            bounds = model.guidance.epsilons or ()
            through = model.guidance.through
            trained_on = [model.attack, *model.guidance.attacks, *([through] if through else [])]
            attacks += [("model.guidance", unit, bounds) for unit in trained_on]
        for where, attack, epsilons in attacks:
            ATTACKS.check(attack.name, attack.options)
            made = ATTACKS.create(attack.name, **attack.options)
            for number, eps in enumerate(epsilons):
                made.bound(eps, f"{where}.epsilons.{number}")
            if attack.options.get("targeted"):
                raise InputError(
                    "attack.targeted", "false: runs train and measure untargeted", "true"
                )
        purifiers = [("model.purifier", model.purifier, model.purifier_weights)]
        purifiers += [
            (f"model.others.{name}", other.purifier, other.weights)
            for name, other in model.others.items()
        ]
        for where, purifier, weights in purifiers:
            PURIFIERS.check(purifier.name, purifier.options)
            if purifier.name == Ensemble.name:
                _check_members(where, purifier.options["members"], weights is not None)
        surveys = self.assess.detection
        detectors = [unit for survey in surveys for unit in survey.detectors.values()]
        for detector in (*detectors, *([model.detector] if model.detector else [])):
            options = {"classifier": None, "purifier": None, **detector.options}
            DETECTORS.check(detector.name, options)
        changes = [unit for survey in surveys for unit in survey.harmless]
        for change in (*changes, *model.harmless):
            HARMLESS.create(change.name, **change.options)


def _check_members(where: str, members: Any, trained: bool) -> None:
    """Check an ensemble's members; without weights at most one may want to be fitted, alone."""
    ways = [member.learns for member in read_members(members) if member.learns != "nothing"]
    if not trained and "in closed form" in ways and len(ways) > 1:
        wanted = "a member that learns in closed form to be the only one without weights"
        raise InputError(f"{where}.members", wanted, f"{len(ways)} that learn")


def load_config(
    path: str | os.PathLike[str] | None = None, overrides: Sequence[str] = ()
) -> RunConfig:
    """Read a config file, or the embedded default, and apply overrides.

    Args:
        path: a YAML file; None for the embedded default. With ``extends: other.yaml`` it holds
            only what differs from that file beside it: sections are merged key by key, a dotted
            key such as ``model.others`` replaces the whole.
        overrides: settings such as ``"sample.source.path=/data"``; the value is read as YAML.

    Raises:
        InputError: when the file is absent or not YAML, or for a key that does not exist (with
            the nearest that does) or a value that its key does not take.
    """
    data = RunConfig().model_dump(mode="json") if path is None else _read(Path(path), ())
    for override in overrides:
        _apply(data, override)
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        raise _explained(error) from None
    config.check_units()
    return config


def _read(file: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """A file's settings over those of the file that it extends."""
    if not file.is_file():
        raise InputError("config", "an existing YAML file", str(file))
    try:
        data = parse_yaml(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"config {file}", "valid YAML", error) from None
    if not isinstance(data, dict):
        raise InputError(f"config {file}", "a mapping of keys", type(data).__name__)
    extended = data.pop("extends", None)
    if extended is None:
        return data
    base = file.parent / str(extended)
    if base.resolve() in above:
        raise InputError(f"config {file}", "files that do not extend each other", str(extended))
    whole = {key: value for key, value in data.items() if "." in str(key)}
    rest = {key: value for key, value in data.items() if key not in whole}
    merged = _merged(_read(base, (*above, file.resolve())), rest)
    for key, value in whole.items():
        _put(merged, str(key), value, f"config {file}: {key}")
    return merged


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Settings over others: sections key by key; a unit of another name replaces the whole."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = value
        if isinstance(old, dict) and isinstance(value, dict):
            same_unit = value.get("name", old.get("name")) == old.get("name")
            merged[key] = _merged(old, value) if same_unit else value
    return merged


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError("--set", "key=value", repr(override))
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {key}", "a YAML value", error) from None
    _put(data, key.strip(), value, f"--set {key}")


def _put(data: dict[str, Any], key: str, value: Any, told: str) -> None:
    """Set what a dotted key names, in place of whatever is there."""
    *parents, last = key.split(".")
    place = data
    for parent in parents:
        inner = place.get(parent)
        if inner is None:
            inner = place[parent] = {}
        if not isinstance(inner, dict):
            raise InputError(told, f"a key that has keys below it at {parent!r}", inner)
        place = inner
    place[last] = value


def _explained(error: ValidationError) -> InputError:
    """The first of pydantic's complaints as one line of ours."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, InputError):
        return InputError(
            where,
            str(inner).partition(": expected ")[2].partition("; got ")[0],
            repr(first["input"]),
        )
    if first["type"] != "extra_forbidden":
        return InputError(where, first["msg"][0].lower() + first["msg"][1:], repr(first["input"]))
    section = _section_at(first["loc"][:-1])
    like = nearest(str(first["loc"][-1]), list(section.model_fields))
    known = ", ".join(section.model_fields)
    hint = f"nearest: {like!r}" if like else ""
    return InputError(where, f"a key that exists ({known})", "an unknown one", hint)


def _section_at(location: Sequence[int | str]) -> type[BaseModel]:
    section: type[BaseModel] = RunConfig
    parts = iter(location)
    for part in parts:
        held = section.model_fields[str(part)].annotation
        section = next(
            option
            for option in get_args(held) or (held,)
            if isinstance(option, type) and issubclass(option, BaseModel)
        )
        if get_origin(held) in (tuple, dict):
            next(parts, None)  # a place or a name, which no section has as a key
    return section
