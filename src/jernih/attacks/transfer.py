"""Transfer: images made to fool one model, shown to another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from jernih.attacks.base import Attack, check_model
from jernih.types import Needs
from jernih.validate import InputError


class Transfer(Attack):
    """An attack on a model of the attacker's own, judged on the one it is called with.

    The attacker knows nothing of the model under attack but what images and classes it takes; the
    attack runs on the ``surrogate`` and the model is asked once, for the outcome (Papernot et al.,
    arXiv:1605.07277). What transfers although attacks on the model itself fail, tells of hidden
    gradients rather than of robustness.

    It is no attack of the registry, since a config cannot name a model in a word; otherwise it is
    used like any other.

    Args:
        attack: what to run on the surrogate; its bound, norm and goal are the transfer's.
        surrogate: images in [0, 1] → logits (N, K), with the same classes, in evaluation mode.

    Raises:
        InputError: for an attack that is none, or a surrogate that is no model in evaluation mode.

    Example:
        >>> import torch
        >>> from jernih.attacks import PGD
        >>> _ = torch.manual_seed(0)
        >>> his, ours = (
        ...     torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
        ...     for _ in range(2)
        ... )
        >>> images = torch.full((2, 3, 2, 2), 0.5)
        >>> attack = Transfer(PGD(0.3), his)
        >>> result = attack(ours, images, ours(images).argmax(1))
        >>> result.images.shape
        torch.Size([2, 3, 2, 2])
    """

    name: ClassVar[str] = "transfer"
    reference: ClassVar[str] = "arXiv:1605.07277"
    needs: ClassVar[Needs] = "nothing"
    targetable: ClassVar[bool] = True

    def __init__(self, attack: Attack, surrogate: nn.Module) -> None:
        if not isinstance(attack, Attack):
            raise InputError("attack", "an attack", f"a {type(attack).__name__}")
        try:
            check_model(surrogate)
        except InputError as error:
            raise InputError("surrogate", "a model in evaluation mode", str(error)) from None
        self.norm = attack.norm
        super().__init__(attack.eps, targeted=attack.targeted)
        self.attack, self.surrogate = attack, surrogate

    def describe(self) -> dict[str, Any]:
        """What tells this transfer from others: the attack, and the surrogate's weights by hash."""
        inner = self.attack.describe()
        return {
            "name": self.name,
            "eps": inner.pop("eps", self.eps),
            "targeted": inner.pop("targeted", self.targeted),
            "attack": inner | {"norm": self.norm},
            "surrogate": {"class": type(self.surrogate).__name__, "sha256": _hash(self.surrogate)},
        }

    def run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        eps: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return attacked images for one bound."""
        return self.run_sweep(model, images, labels, [eps], generator)[0]

    def run_sweep(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        epsilons: Sequence[float],
        generator: torch.Generator | None,
    ) -> list[Tensor]:
        """Return attacked images for each bound; the model is not asked."""
        return self.attack.perturb(self.surrogate, images, labels, epsilons, generator=generator)

    def _confine(self, images: Tensor, attacked: Tensor, eps: float) -> Tensor:
        return attacked  # the attack has done so, in its own way


def _hash(model: nn.Module) -> str:
    """The SHA-256 of a model's parameters and buffers with their names."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            stored = value.detach().cpu().contiguous()
            digest.update(f"{name} {stored.dtype} {tuple(stored.shape)} ".encode())
            digest.update(stored.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
