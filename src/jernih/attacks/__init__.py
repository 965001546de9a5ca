"""Attacks: ``attack(model, images, labels) -> AttackResult``, one method a file."""

from jernih.attacks.base import ATTACKS, UNBOUNDED, Attack, MinimumNorm, distance, project
from jernih.attacks.bim import BIM
from jernih.attacks.fgsm import FGSM
from jernih.attacks.mi_fgsm import MIFGSM
from jernih.attacks.pgd import PGD
from jernih.attacks.r_fgsm import RFGSM

__all__ = [
    "ATTACKS",
    "BIM",
    "FGSM",
    "MIFGSM",
    "PGD",
    "RFGSM",
    "UNBOUNDED",
    "Attack",
    "MinimumNorm",
    "distance",
    "project",
]
