"""The few values that pass between the rooms of the house."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Norm = Literal["linf", "l2", "l1"]
Knowledge = Literal["oblivious", "adaptive"]
Labels = Literal["true", "predicted"]
Needs = Literal["gradients", "scores", "decisions", "nothing"]
Policy = Literal["restore", "restore-flagged", "reject-flagged"]


@dataclass(frozen=True)
class Threat:
    """What an attacker is assumed to be able to do.

    Attributes:
        norm: the norm that bounds the perturbation.
        eps: its bound, on the scale of images in [0, 1].
        knowledge: ``"oblivious"``: the attacker sees only the classifier; ``"adaptive"``: the
            attacker sees, and differentiates through, the purifier and the classifier.
        detector_aware: the attacker sees the detector and its threshold too, and has failed where
            it raises an alarm.
    """

    norm: Norm
    eps: float
    knowledge: Knowledge = "oblivious"
    detector_aware: bool = False

    def __str__(self) -> str:
        aware = ", detector-aware" if self.detector_aware else ""
        return f"{self.knowledge}{aware}, {self.norm}, eps {self.eps:g}"


@dataclass(frozen=True)
class AttackResult:
    """What an attack made of a batch, rechecked by the attack's base class.

    Attributes:
        images: attacked images, float32 (N, C, H, W), within [0, 1] and within the ball.
        logits: the attacked model's logits on them (N, K), without gradient.
        success: bool (N,): wrong class (untargeted) or the wanted class (targeted).
        distances: size of each perturbation in the attack's norm, float32 (N,).
        norm: the norm of ``distances`` and ``eps``.
        eps: the bound that held, on the scale of images in [0, 1].
    """

    images: Tensor
    logits: Tensor
    success: Tensor
    distances: Tensor
    norm: Norm
    eps: float

    @property
    def predictions(self) -> Tensor:
        """The attacked model's classes on the attacked images, int64 (N,)."""
        return self.logits.argmax(1)
