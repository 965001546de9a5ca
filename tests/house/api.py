"""The public names of the package and their signatures.

``python -m tests.house.api`` writes them to ``tests/house/api.json``: run it after a change that is
meant, and the difference shows in the commit what users will meet.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jernih
from jernih.storage import write_json

FILE = Path(__file__).with_name("api.json")


def packages() -> list[str]:
    """The package and those of its sub-packages that say what is public."""
    source = Path(jernih.__file__).parent
    found = [
        f"jernih.{file.parent.name}"
        for file in sorted(source.glob("*/__init__.py"))
        if "__all__" in file.read_text(encoding="utf-8")
    ]
    return ["jernih", *found]


def surface() -> dict[str, dict[str, Any]]:
    """What each public name of each package is."""
    return {name: _of(importlib.import_module(name)) for name in packages()}


def _of(package: ModuleType) -> dict[str, Any]:
    return {name: describe(getattr(package, name)) for name in sorted(package.__all__)}


def describe(thing: Any) -> Any:
    """A signature; of a class its constructor's, its fields' and those of its public methods."""
    if inspect.isclass(thing) and hasattr(thing, "model_fields"):
        # Signatures of pydantic's models are written otherwise in each of its versions.
        return {name: field.is_required() for name, field in thing.model_fields.items()}
    if inspect.isclass(thing):
        members = {"": f"class{_signature(thing)}"}
        for name, member in sorted(vars(thing).items()):
            if name.startswith("_"):
                continue
            bare = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if inspect.isfunction(bare):
                members[name] = _signature(bare)
            elif isinstance(bare, property):
                members[name] = "property"
        if dataclasses.is_dataclass(thing):
            members |= {f.name: str(f.type) for f in dataclasses.fields(thing)}
        return members
    if inspect.isfunction(thing):
        return _signature(thing)
    return type(thing).__name__


def _signature(thing: Any) -> str:
    try:
        parameters = inspect.signature(thing).parameters.values()
    except ValueError:  # such as a type of the language's own
        return "(…)"
    parts, keywords = [], False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            keywords = True
            parts.append("*")
        keywords |= parameter.kind is parameter.VAR_POSITIONAL
        parts.append(_parameter(parameter))
    return f"({', '.join(parts)})"


def _parameter(parameter: inspect.Parameter) -> str:
    text = parameter.name
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        text = ("*" if parameter.kind is parameter.VAR_POSITIONAL else "**") + text
    annotation = parameter.annotation
    if annotation is not parameter.empty:
        named = isinstance(annotation, str)
        text += f": {annotation if named else inspect.formatannotation(annotation)}"
    if parameter.default is not parameter.empty:
        shown = repr(parameter.default)
        text += f" = {'…' if ' at 0x' in shown or len(shown) > 60 else shown}"
    return text


if __name__ == "__main__":
    sys.stdout.write(f"{write_json(FILE, surface())}\n")
