"""What an adaptive attacker puts between attack and model; any attack takes it as a model."""

from jernih.adaptive.bpda import BPDA
from jernih.adaptive.detector_aware import DetectorAware, Evasion, evade
from jernih.adaptive.eot import Expectation
from jernih.adaptive.self_check import check_gradients
from jernih.adaptive.verdict import GradientCheck

__all__ = [
    "BPDA",
    "DetectorAware",
    "Evasion",
    "Expectation",
    "GradientCheck",
    "check_gradients",
    "evade",
]
