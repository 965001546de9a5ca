"""Attacks: ``attack(model, images, labels) -> AttackResult``, one method a file."""

from jernih.attacks.base import ATTACKS, Attack, distance, project
from jernih.attacks.fgsm import FGSM

__all__ = ["ATTACKS", "FGSM", "Attack", "distance", "project"]
