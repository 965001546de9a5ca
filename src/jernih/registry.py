"""Names for the things a user can choose: attacks, purifiers, detectors, data sources.

Each kind has one :class:`Registry`, kept beside its base class. A unit registers itself with a
decorator in its own file; the package's ``__init__`` imports that file, and that is all.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Generic, Self, TypeVar

from jernih.validate import InputError, check_choice

T = TypeVar("T")
C = TypeVar("C", bound=type[Any])


class Configured:
    """A unit that remembers the options it was made with, so that it can be made again.

    Attributes:
        name: the name in the registry.
        options: the constructor's keyword arguments with their defaults filled in.
    """

    name: ClassVar[str]
    options: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Make the object and note its options; copying and unpickling pass none."""
        unit = super().__new__(cls)
        parameters = _parameters(cls)
        bound = inspect.Signature(parameters).bind_partial(*args, **kwargs)
        bound.apply_defaults()
        object.__setattr__(unit, "options", dict(bound.arguments))
        return unit

    def describe(self) -> dict[str, Any]:
        """The name and those options that are plain data, fit for JSON."""
        return {"name": self.name, **{k: v for k, v in self.options.items() if _is_plain(v)}}


def _parameters(unit: type[Any]) -> list[inspect.Parameter]:
    """The named parameters of a class's constructor."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p for p in inspect.signature(unit).parameters.values() if p.kind not in variadic]


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


class Registry(Generic[T]):
    """The named units of one kind.

    Args:
        kind: what the units are, in the singular, as an error message says it ("attack").

    Example:
        >>> shapes: Registry[object] = Registry("shape")
        >>> @shapes.register("disc")
        ... class Disc:
        ...     def __init__(self, radius: float = 1.0) -> None:
        ...         self.radius = radius
        >>> shapes.create("disc", radius=2.0).radius
        2.0
        >>> shapes.create("disk")
        Traceback (most recent call last):
        ...
        jernih.validate.InputError: shape: expected one of 'disc'; got 'disk' (nearest: 'disc')
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._units: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Return a class decorator that puts the class under ``name`` (also as ``cls.name``).

        Raises:
            InputError: when the name is taken by another class.
        """

        def add(unit: C) -> C:
            if name in self._units:
                raise InputError(f"{self.kind} name", "one not yet registered", repr(name))
            setattr(unit, "name", name)  # noqa: B010 - the type variable knows no attributes
            self._units[name] = unit
            return unit

        return add

    def names(self) -> tuple[str, ...]:
        """All registered names in alphabetical order."""
        return tuple(sorted(self._units))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._units

    def get(self, name: str) -> type[T]:
        """The class registered under ``name``.

        Raises:
            InputError: for an unknown name, with the nearest known one.
        """
        check_choice(self.kind, name, self.names())
        return self._units[name]

    def check(self, name: str, options: Mapping[str, Any]) -> None:
        """Check a unit's name and the names of its options without making it.

        Raises:
            InputError: for an unknown name, an option that the unit does not take (with the
                nearest one that it does), or a required option that is absent.
        """
        parameters = _parameters(self.get(name))
        for option in options:
            check_choice(f"option of {self.kind} {name!r}", option, [p.name for p in parameters])
        for parameter in parameters:
            if parameter.default is parameter.empty and parameter.name not in options:
                raise InputError(f"{self.kind} {name!r}", f"the option {parameter.name!r}", "none")

    def create(self, name: str, **options: Any) -> T:
        """Construct the unit ``name`` with ``options`` as keyword arguments.

        Raises:
            InputError: as :meth:`check` does, and for what the unit's constructor refuses.
        """
        self.check(name, options)
        return self.get(name)(**options)
