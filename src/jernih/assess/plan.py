"""What an assessment is to do: which attack, how strong, and what the attacker knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import nn

from jernih.adaptive import Expectation
from jernih.attacks import Attack
from jernih.randomness import generator
from jernih.storage import fingerprint
from jernih.types import Knowledge, Labels
from jernih.validate import InputError, check_choice, check_number


@dataclass(frozen=True)
class AssessmentPlan:
    """The attack and the conditions under which it is run.

    Args:
        attack: an untargeted attack; its own bound is not used.
        epsilons: bounds in the attack's norm, on the scale of images in [0, 1], each a number or
            a fraction such as ``"4/255"``; kept as sorted distinct floats above 0.
        knowledge: what the attacker sees: ``"oblivious"`` (the classifier alone), ``"adaptive"``
            (purifier and classifier), or both.
        batch_size: images measured together.
        level: confidence level of every interval, in [0.5, 0.999].
        seed: seed of the attack's randomness and of the bootstrap.
        draws: answers of a random purifier that an adaptive attacker averages at every step
            (:class:`jernih.adaptive.Expectation`); 1 for a purifier that is not random.

    Raises:
        InputError: for a value outside these, and for a targeted attack.

    Example:
        >>> from jernih.attacks import FGSM
        >>> AssessmentPlan(FGSM(), ("8/255", 0.01, 0.01)).epsilons
        (0.01, 0.03137254901960784)
    """

    attack: Attack
    epsilons: Sequence[float | str]
    knowledge: tuple[Knowledge, ...] = ("oblivious", "adaptive")
    batch_size: int = 32
    level: float = 0.95
    seed: int = 0
    draws: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.attack, Attack):
            raise InputError("attack", "an Attack", f"a {type(self.attack).__name__}")
        if self.attack.targeted:
            raise InputError("attack", "an untargeted attack", "a targeted one")
        if isinstance(self.epsilons, str) or not self.epsilons:
            raise InputError("epsilons", "a list of one or more bounds", repr(self.epsilons))
        bounds = sorted({self.attack.bound(eps) for eps in self.epsilons})
        if bounds[0] == 0:
            raise InputError("epsilons", "bounds above 0", 0)
        if not self.knowledge:
            raise InputError("knowledge", "at least one kind of attacker", "none")
        for kind in self.knowledge:
            check_choice("knowledge", kind, get_args(Knowledge))
        for name, least in (("batch_size", 1), ("seed", 0), ("draws", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(name, f"an integer of at least {least}", repr(value))
        object.__setattr__(self, "epsilons", tuple(bounds))
        object.__setattr__(self, "knowledge", tuple(dict.fromkeys(self.knowledge)))
        object.__setattr__(self, "level", check_number("level", self.level, 0.5, 0.999))

    @property
    def bounds(self) -> tuple[float, ...]:
        """The bounds as sorted distinct floats."""
        return tuple(float(eps) for eps in self.epsilons)

    def describe(self) -> dict[str, Any]:
        """The plan as plain data, fit for JSON."""
        attack = {k: v for k, v in self.attack.describe().items() if k not in ("eps", "targeted")}
        return {
            "attack": {**attack, "norm": self.attack.norm, "reference": self.attack.reference},
            "epsilons": list(self.bounds),
            "knowledge": list(self.knowledge),
            "batch_size": self.batch_size,
            "level": self.level,
            "seed": self.seed,
            **({"draws": self.draws} if self.draws > 1 else {}),
        }

    def known(self, model: nn.Module, *parts: int | str) -> nn.Module:
        """What an adaptive attacker climbs: the model, or its mean answer over the draws.

        Args:
            model: images (N, 3, H, W) → logits (N, K).
            parts: what sets these draws apart from others of the same seed.
        """
        if self.draws == 1:
            return model
        source = generator(self.seed, "draws", *parts)
        return Expectation(model, self.draws, generator=source).eval()

    def fingerprint(self) -> str:
        """A SHA-256 over :meth:`describe`, for telling one plan's results from another's."""
        return fingerprint(self.describe())


@dataclass(frozen=True)
class SurveyPlan:
    """What a survey is to do.

    Attributes:
        title: what it is about.
        assessment: attack, bounds, attackers, batch size, level and seed.
        limit: number of images to draw at random; None for all.
        labels: what attacks lead away from: the ``"true"`` classes, or those ``"predicted"`` for
            the clean image. One step away from a true class tells it to whoever undoes the step
            (label leaking, arXiv:1611.01236): restored may then be more right than clean.
    """

    title: str
    assessment: AssessmentPlan
    limit: int | None = None
    labels: Labels = "true"

    def __post_init__(self) -> None:
        check_choice("labels", self.labels, get_args(Labels))

    @property
    def leads_from(self) -> dict[str, str]:
        """The labels, where they are not the true ones."""
        return {} if self.labels == "true" else {"labels": self.labels}

    def describe(self) -> dict[str, Any]:
        """What is done to each image, as plain data."""
        return {**self.assessment.describe(), **self.leads_from}

    def drawn(self, size: int) -> list[int]:
        """The positions of the images, of so many, that the survey looks at."""
        return drawn(size, self.limit, self.assessment.seed)


def drawn(size: int, limit: int | None, seed: int) -> list[int]:
    """The positions of so many images of ``size``, in order; the same in every survey of a run."""
    if limit is None or limit >= size:
        return list(range(size))
    source = generator(seed, "survey", limit)
    return sorted(torch.randperm(size, generator=source)[:limit].tolist())
