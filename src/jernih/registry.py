"""Names for the things a user can choose: attacks, purifiers, detectors, data sources.

Each kind has one :class:`Registry`, kept beside its base class. A unit registers itself with a
decorator in its own file; the package's ``__init__`` imports that file, and that is all.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from jernih.validate import InputError, check_choice

T = TypeVar("T")
C = TypeVar("C", bound=type)


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
            unit.name = name
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

    def create(self, name: str, **options: Any) -> T:
        """Construct the unit ``name`` with ``options`` as keyword arguments.

        Raises:
            InputError: for an unknown name, an option that the unit does not take (with the
                nearest one that it does), or a required option that is absent.
        """
        unit = self.get(name)
        parameters = inspect.signature(unit).parameters
        known = [p.name for p in parameters.values() if p.kind is not p.VAR_KEYWORD]
        for option in options:
            if option not in known:
                check_choice(f"option of {self.kind} {name!r}", option, known)
        for p in parameters.values():
            if p.default is p.empty and p.name not in options and p.kind is not p.VAR_KEYWORD:
                raise InputError(f"{self.kind} {name!r}", f"the option {p.name!r}", "none")
        return unit(**options)
