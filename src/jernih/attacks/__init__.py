"""Attacks: ``attack(model, images, labels) -> AttackResult``, one method a file."""

from jernih.attacks.apgd import APGD
from jernih.attacks.apgd_t import APGDT
from jernih.attacks.auto_attack import AutoAttack
from jernih.attacks.base import ATTACKS, UNBOUNDED, Attack, MinimumNorm, distance, project
from jernih.attacks.bim import BIM
from jernih.attacks.blur import Blur
from jernih.attacks.carlini_wagner import CarliniWagner
from jernih.attacks.carlini_wagner_linf import CarliniWagnerLinf
from jernih.attacks.control import Control
from jernih.attacks.ddn import DDN
from jernih.attacks.deepfool import DeepFool
from jernih.attacks.ead import EAD
from jernih.attacks.fab import FAB
from jernih.attacks.fab_t import FABT
from jernih.attacks.fgsm import FGSM
from jernih.attacks.gaussian_noise import GaussianNoise
from jernih.attacks.hop_skip_jump import HopSkipJump
from jernih.attacks.jpeg_compression import JPEGCompression
from jernih.attacks.jsma import JSMA
from jernih.attacks.mi_fgsm import MIFGSM
from jernih.attacks.pgd import PGD
from jernih.attacks.r_fgsm import RFGSM
from jernih.attacks.salt_and_pepper import SaltAndPepper
from jernih.attacks.simba import SimBA
from jernih.attacks.square import Square
from jernih.attacks.transfer import Transfer
from jernih.attacks.uniform_noise import UniformNoise
from jernih.attacks.universal import Universal

__all__ = [
    "APGD",
    "APGDT",
    "ATTACKS",
    "BIM",
    "DDN",
    "EAD",
    "FAB",
    "FABT",
    "FGSM",
    "JSMA",
    "MIFGSM",
    "PGD",
    "RFGSM",
    "UNBOUNDED",
    "Attack",
    "AutoAttack",
    "Blur",
    "CarliniWagner",
    "CarliniWagnerLinf",
    "Control",
    "DeepFool",
    "GaussianNoise",
    "HopSkipJump",
    "JPEGCompression",
    "MinimumNorm",
    "SaltAndPepper",
    "SimBA",
    "Square",
    "Transfer",
    "UniformNoise",
    "Universal",
    "distance",
    "project",
]
