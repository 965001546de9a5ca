"""AutoAttack: an ensemble of attacks that need no tuning."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from jernih.attacks.asking import ask
from jernih.attacks.base import ATTACKS, Attack, check_model
from jernih.attacks.draws import source
from jernih.attacks.pgd import BOUNDS
from jernih.types import Norm
from jernih.validate import (
    InputError,
    check_choice,
    check_count,
    check_images,
    check_labels,
)

log = logging.getLogger(__name__)

Version = Literal["standard", "rand"]
VERSIONS: dict[str, tuple[str, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
"""The members of each version, in the order in which they attack."""
MEMBERS: dict[str, tuple[str, dict[str, Any]]] = {
    "apgd-ce": ("apgd", {"loss": "ce"}),
    "apgd-dlr": ("apgd", {"loss": "dlr"}),
    "apgd-t": ("apgd-t", {"targets": 9}),
    "fab-t": ("fab-t", {"targets": 9}),
    "square": ("square", {}),
}
"""What each member is: a registered attack with its options."""


@ATTACKS.register("auto-attack")
class AutoAttack(Attack):
    """AutoAttack in L∞ or L2 (Croce & Hein, arXiv:2003.01690).

    Four attacks one after the other, each on the images that the model still gets right after
    those before it: Auto-PGD on the cross-entropy (``"apgd"``), Auto-PGD towards the nine likeliest
    wrong classes (``"apgd-t"``), the same with FAB (``"fab-t"``),
    and ``"square"``, which only asks for logits. For models that answer at random, the version
    ``"rand"``: Auto-PGD on the cross-entropy and on DLR, each gradient a mean of 20.

    An image that withstands all is returned as the first member left it. With fewer than ten
    classes the targeted members aim at all the wrong ones; with two or three, ``"apgd-t"`` raises
    the difference of two logits, for want of targeted DLR; with two, ``"rand"`` does without DLR.

    Args:
        eps: bound on the perturbation, on the scale of images in [0, 1]; None for 8/255 in L∞ and
            0.5 in L2, as is usual for CIFAR-10.
        norm: ``"linf"`` or ``"l2"``.
        version: ``"standard"`` or ``"rand"``.
        members: other members than the version's, out of :data:`MEMBERS`, in order.
        steps: number of steps of the members that use gradients.
        queries: how often ``"square"`` asks for an image.

    Raises:
        InputError: for another norm, version or member, or counts below one.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
        >>> images = torch.rand(20, 3, 2, 2)
        >>> labels = model(images).argmax(1)
        >>> attack = AutoAttack("8/255", members=["apgd-ce", "apgd-t"], steps=20)
        >>> told = attack.contributions(model, images, labels)
        >>> {name: int(fooled.sum()) for name, fooled in told.items()}
        {'clean': 0, 'apgd-ce': 1, 'apgd-t': 0}
    """

    reference: ClassVar[str] = "arXiv:2003.01690"

    def __init__(
        self,
        eps: float | str | None = None,
        *,
        norm: Norm = "linf",
        version: Version = "standard",
        members: Sequence[str] | None = None,
        steps: int = 100,
        queries: int = 5000,
    ) -> None:
        check_choice("norm", norm, ("linf", "l2"))
        self.norm = norm
        if eps is None:
            eps = self.options["eps"] = BOUNDS[norm]
        super().__init__(eps)
        check_choice("version", version, tuple(VERSIONS))
        effort = {"steps": check_count("steps", steps), "queries": check_count("queries", queries)}
        if version == "rand":
            effort["samples"] = 20
        names = VERSIONS[version] if members is None else tuple(members)
        if not names or len(set(names)) < len(names):
            raise InputError("members", "one or more, none of them twice", repr(members))
        self.members = {name: self._make(name, effort) for name in names}

    def _make(self, name: str, effort: dict[str, int]) -> Attack:
        """A member, with as much of ``effort`` as it has options for."""
        check_choice("members", name, tuple(MEMBERS))
        attack, options = MEMBERS[name]
        made = ATTACKS.create(attack, eps=self.eps, norm=self.norm, **options)
        known = {option: value for option, value in effort.items() if option in made.options}
        return ATTACKS.create(attack, eps=self.eps, norm=self.norm, **options, **known)

    def run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        eps: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return attacked images for one bound."""
        attacked = images
        for _, made, _ in self._stages(model, images, labels, eps, generator):
            attacked = made
        return attacked

    def contributions(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Attack a batch as a call does, and tell which images each member was the first to fool.

        Returns:
            for ``"clean"``, the images that the model gets wrong as they are, and for each member
            in order: bool (N,), true for an image in at most one of them.

        Raises:
            InputError: as for a call.
        """
        check_model(model)
        images = check_images(images)
        check_labels(labels, len(images))
        nobody = torch.zeros_like(labels, dtype=torch.bool)
        told = dict.fromkeys(("clean", *self.members), nobody)
        for name, _, fooled in self._stages(model, images, labels, self.eps, generator):
            told[name] = fooled
        return told

    def _stages(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        eps: float,
        generator: torch.Generator | None,
    ) -> Iterator[tuple[str, Tensor, Tensor]]:
        """After each member its name, the attacked images so far, and which it was first to fool.

        An image that is fooled already goes to the next members attacked, and they let it be since
        the model gets it wrong. Thus all members see the whole batch, and the random numbers for an
        image do not depend on who is left.
        """
        seeds = torch.randint(2**62, (len(self.members),), generator=source(generator)).tolist()
        logits = ask(model, images)
        check_labels(labels, len(images), logits.shape[1])
        made = inputs = images
        fooled = self.fooled(logits, labels)
        yield "clean", made, fooled
        for seed, (name, member) in zip(seeds, self.members.items(), strict=True):
            if bool(fooled.all()):
                break
            if name == "apgd-dlr" and logits.shape[1] < 3:
                log.info("auto-attack: two classes: no apgd-dlr")
                continue
            chance = torch.Generator().manual_seed(seed)
            result = member.sweep(model, inputs, labels, [eps], generator=chance)[0]
            fresh = result.success & ~fooled
            left = int((~fooled).sum())
            log.info("auto-attack: %s fooled %d of %d images", name, int(fresh.sum()), left)
            first = made is images
            made = torch.where((~fooled if first else fresh).view(-1, 1, 1, 1), result.images, made)
            inputs = torch.where(fresh.view(-1, 1, 1, 1), result.images, inputs)
            fooled = fooled | fresh
            yield name, made, fresh
