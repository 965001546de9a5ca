"""An attack on files as one asks for it by names, as the command line does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import yaml

from jernih.attack_files.folder import AttackFolder
from jernih.attack_files.formats import FORMATS, Format
from jernih.attack_files.images import find_images, find_source
from jernih.attack_files.model import find_model, read_classes
from jernih.attack_files.run import AttackedFiles, attack_files
from jernih.attacks import ATTACKS, Attack
from jernih.data.modify import Fit
from jernih.device import pick_device
from jernih.storage import parse_yaml
from jernih.validate import InputError, check_choice
from jernih.world import join_world

_APART = ("eps", "norm", "targeted")
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?e[-+]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class AttackJob:
    """All that ``jernih attack`` can be told; see there, and the functions that each goes to.

    Args:
        model: see :func:`~jernih.attack_files.find_model`.
        data: see :func:`~jernih.attack_files.images.find_source`.
        out: folder for the attacked images.
        attack: a registered attack.
        eps: its bound; None for the attack's own.
        norm: the norm of the bound; None for the attack's own.
        options: the attack's other options.
        target: class to reach.
        model_options: arguments of :func:`~jernih.classifiers.load_classifier` beside the name.
        classes: names of the model's classes in order, or a file of them.
        labels: table of labels for a folder without class folders.
        data_options: further options of the data source.
        split: take only this split of the data.
        limit: draw at most this many images.
        size: width and height that images are brought to.
        fit: how.
        file_format: ``"png"``, ``"png16"`` or ``"npy"``.
        batch_size: images attacked together.
        seed: seed of the draw and of the attack.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        trust_code: whether a weights file may name code as its network.
    """

    model: str
    data: str
    out: Path
    attack: str = "pgd"
    eps: float | str | None = None
    norm: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    target: str | None = None
    model_options: Mapping[str, Any] = field(default_factory=dict)
    classes: str | None = None
    labels: str | None = None
    data_options: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    limit: int | None = None
    size: int | None = None
    fit: str | None = None
    file_format: str = "png"
    batch_size: int = 32
    seed: int = 0
    device: str = "auto"
    trust_code: bool = False

    def run(self, progress: Callable[[int, int], None] | None = None) -> AttackedFiles:
        """Attack the images, or go on where that was interrupted.

        Processes that ``torchrun`` has started share the work.

        Raises:
            InputError: for whatever of this cannot be; what is quick to check is checked first.
        """
        world = join_world()
        attack = self.make_attack()
        file_format = cast(Format, check_choice("format", self.file_format, FORMATS))
        fit = None if self.fit is None else check_choice("fit", self.fit, get_args(Fit))
        device = pick_device(self.device)
        folder = AttackFolder(self.out)
        source = find_source(self.data, self.labels, self.data_options)
        if source.name == "folder" and _within(self.out, Path(self.data)):
            raise InputError("out", "a folder outside the data", self.out)
        with world.leader_first():  # some sources make files
            images = find_images(
                source, self.out / ".source", split=self.split, limit=self.limit, seed=self.seed
            )
        classifier, prepare = find_model(
            self.model,
            images.classes,
            named=None if self.classes is None else read_classes(self.classes),
            size=self.size,
            fit=cast(Fit | None, fit),
            trust_code=self.trust_code,
            **self.model_options,
        )
        return attack_files(
            classifier,
            images,
            attack,
            folder,
            prepare=prepare,
            target=self.target,
            file_format=file_format,
            batch_size=self.batch_size,
            seed=self.seed,
            device=device,
            progress=progress,
        )

    def make_attack(self) -> Attack:
        """The attack with its bound, norm and options.

        Raises:
            InputError: for an unknown attack, option or norm (with the nearest known), a bound
                that is none, and a target for an attack without a targeted form.
        """
        unit = ATTACKS.get(self.attack)
        for name in _APART:
            if name in self.options:
                raise InputError(f"option {name!r}", "one given apart", "among the others")
        given: dict[str, Any] = dict(self.options)
        if self.norm is not None:
            check_choice(f"norm of attack {self.attack!r}", self.norm, unit.norms)
            if unit.norms != (unit.norm,):
                given["norm"] = self.norm
        if self.eps is not None:
            given["eps"] = self.eps
        if self.target is not None:
            if not unit.targetable:
                able = ", ".join(name for name in ATTACKS if ATTACKS.get(name).targetable)
                raise InputError("target", f"an attack with a targeted form ({able})", self.attack)
            given["targeted"] = True
        return ATTACKS.create(self.attack, **given)


def read_options(settings: Sequence[str], argument: str = "--set") -> dict[str, Any]:
    """Read options such as ``"steps=40"``; the values are YAML.

    Raises:
        InputError: for anything without a name and an equals sign, and for what is not YAML.
    """
    options: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.strip():
            raise InputError(argument, "option=value", repr(setting))
        try:
            value = parse_yaml(text)
        except yaml.YAMLError as error:
            raise InputError(f"{argument} {name}", "a YAML value", error) from None
        options[name.strip()] = _number(value)
    return options


def _number(value: Any) -> Any:
    """A number such as 1e-3, which YAML takes for text."""
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def _within(path: Path, folder: Path) -> bool:
    return path.expanduser().resolve().is_relative_to(folder.expanduser().resolve())
