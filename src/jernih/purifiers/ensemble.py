"""Several purifiers as one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
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
    Draws come from torch's own random numbers, which ``Expectation`` seeds; with ``"random"`` the
    output in evaluation mode is thus no function of the input alone.

    Args:
        members: two or more purifiers: each a name, or a mapping of ``name``, its options and, for
            those that come trained, ``weights`` (a file, or a name from ``jernih list weights``).
        how: ``"average"``, the mean of all members' images, or ``"random"``, for each image one of
            the members, each as likely as the others.

    Raises:
        InputError: for fewer than two members, an ensemble among them, and weights of another
            purifier than the one named.

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
        if isinstance(members, (str, Mapping)) or len(members) < 2:
            raise InputError("members", "a list of at least two purifiers", repr(members))
        check_choice("how", how, ("average", "random"))
        self.how = how
        trained = [isinstance(one, Mapping) and "weights" in one for one in members]
        made = [_member(one) for one in members]
        self.parts = nn.ModuleList(made)
        # As they are now, without the files that they came from: those may not be there next time.
        self.options = {**self.options, "members": tuple(one.describe() for one in made)}
        wanted = {one.learns for one, given in zip(made, trained, strict=True) if not given}
        self.learns = next(
            (way for way in ("by gradient", "in closed form") if way in wanted), "nothing"
        )
        self.multiple = math.lcm(*(one.multiple for one in made))

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Fit the member that learns in closed form.

        Raises:
            InputError: for several such members: the images come only once.
        """
        fitted = [part for part in self._members() if part.learns == "in closed form"]
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
                restored = restored.index_copy(0, chosen, part(images[chosen]))
        return restored

    def _members(self) -> list[Purifier]:
        return [part for part in self.parts if isinstance(part, Purifier)]


def _member(choice: str | Mapping[str, Any]) -> Purifier:
    options = {"name": choice} if isinstance(choice, str) else dict(choice)
    name, weights = str(options.pop("name", None)), options.pop("weights", None)
    if name == Ensemble.name:
        raise InputError("members", "purifiers other than ensembles", repr(name))
    if weights is None:
        made = PURIFIERS.create(name, **options)
    else:
        PURIFIERS.check(name, options)
        made = restore_purifier(weights)
        wanted = {"name": name, **options}
        found = made.describe()
        if any(found.get(key) != value for key, value in wanted.items()):
            raise InputError("member's weights", f"those of {wanted}", found)
    return made
