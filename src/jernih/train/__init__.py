"""Training on Lightning: classifiers (also adversarially) and purifiers."""

from jernih.train.adversarial_set import AdversarialSet, write_adversarial_set
from jernih.train.base import TrainingData
from jernih.train.classifier import AdversarialTraining, fit_classifier
from jernih.train.purifier import fit_purifier

__all__ = [
    "AdversarialSet",
    "AdversarialTraining",
    "TrainingData",
    "fit_classifier",
    "fit_purifier",
    "write_adversarial_set",
]
