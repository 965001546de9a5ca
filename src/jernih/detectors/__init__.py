"""Detectors: ``detector(images) -> scores``, higher is more suspicious, one method a file."""

from jernih.detectors.base import DETECTORS, Calibration, Comparison, Detector, Source
from jernih.detectors.combination import Combination
from jernih.detectors.feature_squeezing import FeatureSqueezing
from jernih.detectors.gradient_alignment import GradientAlignment
from jernih.detectors.jensen_shannon import JensenShannon
from jernih.detectors.mahalanobis import Mahalanobis
from jernih.detectors.prediction_change import PredictionChange
from jernih.detectors.reconstruction_error import ReconstructionError

__all__ = [
    "DETECTORS",
    "Calibration",
    "Combination",
    "Comparison",
    "Detector",
    "FeatureSqueezing",
    "GradientAlignment",
    "JensenShannon",
    "Mahalanobis",
    "PredictionChange",
    "ReconstructionError",
    "Source",
]
