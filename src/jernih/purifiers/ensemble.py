"""Several purifiers as one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from jernih.purifiers.base import PURIFIERS, Purifier
from jernih.purifiers.files import restore_purifier
from jernih.validate import InputError, check_choice


@PURIFIERS.register("ensemble")
class Ensemble(Purifier):
    """Several purifiers as one: the mean of what they restore, or one of them at random.

    MagNet draws one of several autoencoders for each image, so that an attacker does not know which
    to go through (Meng & Chen, arXiv:1705.09064). An attacker who climbs the mean over draws
    (:class:`jernih.adaptive.Expectation`) needs not know: judge a random ensemble by that attack.
    Draws come from torch's own random numbers, which ``Expectation`` and runs seed; with
    ``"random"`` the output in evaluation mode is thus no function of the input alone. Members that
    come trained stay as they are; the others are trained side by side, each by its own loss.

    Args:
        members: two or more purifiers: each a name, or a mapping of ``name``, its options and, for
            those that come trained, ``weights`` (a file, or a name from ``jernih list weights``).
        how: ``"average"``, the mean of all members' images, or ``"random"``, for each image one of
            the members, each as likely as the others.

    Raises:
        InputError: for fewer than two members, one that is neither a name nor a mapping, unknown
            names and options, an ensemble among them, and weights of another purifier than the one
            named.

    Example:
        >>> purifier = Ensemble([{"name": "jpeg", "quality": 50}, "median"]).eval()
        >>> purifier(torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 3, 16, 16])
    """

    reference: ClassVar[str] = "arXiv:1705.09064"

    def __init__(
        self,
        members: Sequence[str | Mapping[str, Any]],
        how: Literal["average", "random"] = "average",
    ) -> None:
        super().__init__()
        check_choice("how", how, ("average", "random"))
        self.how = how
        choices = read_members(members)
        made = [choice.make() for choice in choices]
        self.parts = nn.ModuleList(made)
        # As they are now, without the files that they came from: those may not be there next time.
        self.options = {**self.options, "members": tuple(one.describe() for one in made)}
        self._new = [place for place, choice in enumerate(choices) if choice.weights is None]
        ways = {one.learns for one in self._learning()}
        self.learns = next(
            (way for way in ("by gradient", "in closed form") if way in ways), "nothing"
        )
        if {one.trains_on for one in self._learning("by gradient")} == {"clean"}:
            self.trains_on = "clean"
        self.multiple = math.lcm(*(one.multiple for one in made))

    def loss(
        self, attacked: Tensor, clean: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Mean of the members' own losses, a scalar, over those that learn by gradient."""
        taught = self._learning("by gradient")
        if not taught:
            return super().loss(attacked, clean, generator)
        return torch.stack([one.loss(attacked, clean, generator) for one in taught]).mean()

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Fit the member that learns in closed form.

        Raises:
            InputError: for several such members: the images come only once.
        """
        fitted = self._learning("in closed form")
        if len(fitted) != 1:
            raise InputError("members", "one that learns in closed form", len(fitted))
        fitted[0].fit(batches)

    def restore(self, images: Tensor) -> Tensor:
        """Return the mean of what the members restore, or for each image what one of them does."""
        if self.how == "average":
            return torch.stack([part(images) for part in self.parts]).mean(0)
        drawn = torch.randint(len(self.parts), (len(images),))
        restored = images
        for number, part in enumerate(self.parts):
            chosen = (drawn == number).nonzero()[:, 0].to(images.device)
            if len(chosen):
                found = part(images[chosen]).to(images.dtype)  # under autocast it may be another
                restored = restored.index_copy(0, chosen, found)
        return restored

    def _learning(self, way: str | None = None) -> list[Purifier]:
        """The members that did not come trained, or those of them that learn in one way."""
        parts = [part for part in self.parts if isinstance(part, Purifier)]
        return [parts[place] for place in self._new if way in (None, parts[place].learns)]


@dataclass(frozen=True)
class Member:
    """A member of an ensemble, as it is asked for.

    Attributes:
        name: its name in the registry.
        options: its options.
        weights: the file, or the name of weights that come with the package, that it is taken
            from; None for one that is made anew.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None

    @property
    def learns(self) -> str:
        """How it still has to learn."""
        return "nothing" if self.weights is not None else PURIFIERS.get(self.name).learns

    def make(self) -> Purifier:
        """The purifier, frozen where it comes trained.

        Raises:
            InputError: for options that it refuses, and for weights of another purifier.
        """
        if self.weights is None:
            return PURIFIERS.create(self.name, **self.options)
        made = restore_purifier(self.weights)
        wanted = {"name": self.name, **{key: _listed(item) for key, item in self.options.items()}}
        found = {key: _listed(item) for key, item in made.describe().items()}
        if any(key not in found or found[key] != value for key, value in wanted.items()):
            raise InputError("member's weights", f"those of {wanted}", found)
        return made.requires_grad_(False)


def read_members(members: Any) -> list[Member]:
    """Read an ensemble's members without making them.

    Args:
        members: as :class:`Ensemble` takes them.

    Raises:
        InputError: for fewer than two, one that is neither a name nor a mapping, unknown names and
            options, and an ensemble among them.
    """
    if not isinstance(members, Sequence) or isinstance(members, str) or len(members) < 2:
        raise InputError("members", "a list of at least two purifiers", repr(members))
    return [_read(choice) for choice in members]


def _read(choice: Any) -> Member:
    options = {"name": choice} if isinstance(choice, str) else choice
    if not isinstance(options, Mapping) or not isinstance(options.get("name"), str):
        raise InputError("members", "each a name, or a mapping of name and options", repr(choice))
    name, weights = options["name"], options.get("weights")
    if name == Ensemble.name:
        raise InputError("members", "purifiers other than ensembles", repr(name))
    rest = {key: value for key, value in options.items() if key not in ("name", "weights")}
    PURIFIERS.check(name, rest)
    return Member(name, rest, None if weights is None else str(weights))


def _listed(value: Any) -> Any:
    """Tuples as the lists that they are once written."""
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value
