"""The same classifier behind one purifier or another."""

from __future__ import annotations

import functools

from torch import Tensor

from jernih.answer import Answerer
from jernih.defended import Defended
from jernih.purifiers import PURIFIERS, Purifier, restore_purifier
from jernih.shipped import shipped_names
from jernih.validate import InputError, check_choice

SIMPLE: dict[str, tuple[str, dict[str, int]]] = {
    "JPEG, quality 75": ("jpeg", {"quality": 75}),
    "median 3 × 3": ("median", {"size": 3}),
    "none": ("identity", {}),
}


class Defences:
    """Answerers for the model as it is and for its classifier behind other purifiers.

    Only the model's own purifier has a detector, whose threshold was set with it.

    Args:
        own: the answerer of the model as it is.
    """

    def __init__(self, own: Answerer) -> None:
        self.own = own
        self.own_name = f"the model's own: {own.defended.purifier.name}"
        self._maps: bool | None = None

    def has_maps(self, image: Tensor) -> bool:
        """Whether the classifier has feature maps to tell areas from; asked once."""
        if self._maps is None:
            try:
                self.own([image], areas=True)
                self._maps = True
            except InputError:
                self._maps = False
        return self._maps

    def names(self) -> list[str]:
        """What can be chosen, the model's own first."""
        return [self.own_name, *shipped_names(), *SIMPLE]

    @functools.lru_cache(maxsize=8)  # noqa: B019 - as many as there are choices
    def get(self, name: str) -> Answerer:
        """The answerer behind the purifier so named.

        Raises:
            InputError: for a name that is not one of :meth:`names`.
        """
        check_choice("purifier", name, self.names())
        if name == self.own_name:
            return self.own
        purifier: Purifier
        if name in SIMPLE:
            unit, options = SIMPLE[name]
            purifier = PURIFIERS.create(unit, **options).eval()
        else:
            purifier = restore_purifier(name)
        model = self.own.defended
        return Answerer(
            Defended(model.classifier, purifier, prepare=model.prepare), self.own.device
        )
