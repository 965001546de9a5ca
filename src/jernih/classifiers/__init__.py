"""Classifiers: the model to defend, left as it is, behind images in [0, 1] → logits."""

from jernih.classifiers.base import Classifier
from jernih.classifiers.load import load_classifier, restore_classifier, save_classifier

__all__ = ["Classifier", "load_classifier", "restore_classifier", "save_classifier"]
