"""Detectors: ``detector(images) -> scores``, higher is more suspicious, one method a file."""

from jernih.detectors.base import DETECTORS, Calibration, Detector
from jernih.detectors.reconstruction_error import ReconstructionError

__all__ = ["DETECTORS", "Calibration", "Detector", "ReconstructionError"]
