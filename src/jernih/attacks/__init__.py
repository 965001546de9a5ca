"""Attacks: ``attack(model, images, labels) -> AttackResult``, one method a file."""

from jernih.attacks.base import ATTACKS, UNBOUNDED, Attack, MinimumNorm, distance, project
from jernih.attacks.fgsm import FGSM
from jernih.attacks.pgd import PGD

__all__ = [
    "ATTACKS",
    "FGSM",
    "PGD",
    "UNBOUNDED",
    "Attack",
    "MinimumNorm",
    "distance",
    "project",
]
