"""The purifier that does nothing, which every evaluation needs as its control."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from jernih.purifiers.base import PURIFIERS, Purifier


@PURIFIERS.register("identity")
class Identity(Purifier):
    """Return the images as they are: a defended model must then equal the bare classifier."""

    learns: Literal["nothing"] = "nothing"

    def restore(self, images: Tensor) -> Tensor:
        """Return ``images``."""
        return images
