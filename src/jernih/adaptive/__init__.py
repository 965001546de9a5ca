"""What an adaptive attacker puts between attack and model; any attack takes it as a model."""

from jernih.adaptive.bpda import BPDA
from jernih.adaptive.detector_aware import DetectorAware, Evasion, evade
from jernih.adaptive.eot import Expectation

__all__ = ["BPDA", "DetectorAware", "Evasion", "Expectation", "evade"]
