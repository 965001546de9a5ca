"""Which model to attack: a name, a weights file, a card, a config, or the folder of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jernih.classifiers import Classifier, load_classifier, restore_classifier
from jernih.classifiers.load import PROGRAMS
from jernih.config import load_config
from jernih.data.modify import Fit, Prepare
from jernih.data.sources.base import read_rows
from jernih.storage import read_json
from jernih.validate import InputError

_NAME_COLUMNS = ("label", "class", "wnid", "name")
_TRAINED = Path("model") / "classifier" / "classifier.safetensors"
SIZE = 224
"""Width and height where neither the caller nor the model says any."""


def find_model(
    model: str,
    classes: Sequence[str],
    *,
    named: Sequence[str] | None = None,
    size: int | None = None,
    fit: Fit | None = None,
    trust_code: bool = False,
    **options: Any,
) -> tuple[Classifier, Prepare]:
    """The classifier that a name or a path stands for, and how it takes its images.

    Args:
        model: what :func:`~jernih.classifiers.load_classifier` takes (a timm model, one's own
            factory, a saved program), a weights file that Jernih wrote or its JSON card, a config
            (the classifier trained by its run, or else the weights it names), or a run's folder.
        classes: the label space of the data, for a model that does not name its classes.
        named: the classes in the order of the model's outputs; replaces ``classes``.
        size: width and height that images are brought to; by default the run's, else what timm
            records for the model, else 224.
        fit: how they are brought to it; by default the run's, else stretched.
        trust_code: whether a weights file may name code as its network; a run and a config are
            one's own.
        options: further arguments of ``load_classifier``, for a model given by name.

    Raises:
        InputError: for an unknown model, one that nothing was trained for, options for a model
            that has its own, and weights with another number of classes.
    """
    path = Path(model).expanduser()
    given = {key: value for key, value in options.items() if value not in (None, False)}
    config = None
    known: dict[str, Any] | None = None
    if path.is_dir():
        file = path / _TRAINED
        if not file.is_file():
            raise InputError("model", "a run's folder with a trained classifier", path)
        config = path / "config.yaml"
    elif path.suffix in (".yaml", ".yml"):
        config = path
        settings = load_config(path)
        file = Path(settings.out) / _TRAINED
        if not file.is_file():
            known = settings.model.classifier.model_dump()
            if known["weights"] is None and not known["pretrained"]:
                told = f"none in {settings.out}"
                raise InputError("model", "trained weights", told, f"jernih model {model}")
    elif path.suffix == ".json":
        card = read_json(path)
        if not isinstance(card, dict) or card.get("what") != "classifier":
            raise InputError("model", "the card of a classifier", model)
        file = path.parent / str(card.get("file"))
    elif path.suffix == ".safetensors":
        file = path
    else:
        own = path.suffix in PROGRAMS or ":" in model  # these may come with their weights
        if not (own or "weights" in given or "pretrained" in given):
            load_classifier(model, ["0", "1"])  # a wrong name is told first
            hint = "give --weights FILE or --pretrained"
            raise InputError("model", "trained weights", "none", hint)
        known, given = {"name": model, **given}, {}
    if given or (named and known is None):
        first = next(iter(given), "classes")
        raise InputError(first, "nothing for a model that has its own", given.get(first, "some"))
    if known is not None:
        classifier = load_classifier(**known, classes=named or classes, same_head=True)
    else:
        classifier = restore_classifier(file, trust_code=trust_code or config is not None)
    own_size, own_fit = _prepared(file if known is None else None, config, classifier)
    return classifier, Prepare(own_size if size is None else size, own_fit if fit is None else fit)


def read_classes(text: str) -> tuple[str, ...]:
    """Class names from a list such as ``"NORMAL,PNEUMONIA"`` or from a file.

    A text file has a name a line. A CSV has the columns ``index`` and one of ``label``, ``class``,
    ``wnid`` and ``name``, the first that is there.

    Raises:
        InputError: for indices other than 0, 1, 2 …, and fewer than two names.
    """
    file = Path(text).expanduser()
    if not file.is_file():
        names = [name.strip() for name in text.split(",")]
    elif file.suffix.lower() == ".csv":
        rows = read_rows(file, ("index",))
        column = next((c for c in _NAME_COLUMNS if rows and c in rows[0]), None)
        if column is None:
            raise InputError(f"classes {file}", f"a column {' or '.join(_NAME_COLUMNS)}", "none")
        ordered = sorted(rows, key=lambda row: (len(row["index"]), row["index"]))
        if [row["index"] for row in ordered] != [str(n) for n in range(len(rows))]:
            raise InputError(f"classes {file}", "indices 0, 1, 2 … without gaps", "others")
        names = [row[column] for row in ordered]
    else:
        names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    names = [name for name in names if name]
    if len(names) < 2:
        raise InputError("classes", "two or more names, or a file of them", repr(text))
    return tuple(names)


def _prepared(file: Path | None, config: Path | None, classifier: Classifier) -> tuple[int, Fit]:
    """Size and fit as the model was trained with, as far as that is known."""
    if config is not None and config.is_file():
        modify = load_config(config).modify
        return modify.size, modify.fit
    card = None if file is None else file.with_suffix(".json")
    if card is not None and card.is_file():
        written = read_json(card).get("config", {}).get("modify", {})
        return written.get("size", SIZE), written.get("fit", "stretch")
    settings: dict[str, Any] = getattr(classifier.network, "pretrained_cfg", None) or {}
    return int(settings.get("input_size", (3, SIZE, SIZE))[-1]), "stretch"
