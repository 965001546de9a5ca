"""Detection by how far an image's features lie from those of clean images."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor

from jernih.classifiers import Classifier
from jernih.classifiers.features import logits_and_features
from jernih.detectors.base import DETECTORS, Detector, Source
from jernih.purifiers import Purifier
from jernih.validate import InputError

FEW = 8
"""A class with fewer images than this has no mean of its own."""


@DETECTORS.register("mahalanobis")
class Mahalanobis(Detector):
    r"""Mahalanobis distance of the features to the nearest class (Lee et al., arXiv:1807.03888).

    .. math:: s(x) = \min_c\, (φ(x) - μ_c)^\top Σ^{-1} (φ(x) - μ_c)

    with φ what enters the classifier's last linear layer, μ the means of the classes on clean
    images and Σ their common covariance, shrunk towards a multiple of the identity as Ledoit & Wolf
    propose (doi:10.1016/S0047-259X(03)00096-4), since features often outnumber images. Classes with
    fewer than eight images share one mean.

    Args:
        classifier: the defended classifier.
        purifier: what restores the images (not used by this score).

    Raises:
        InputError: when asked for scores before :meth:`fit`.
    """

    reference: ClassVar[str] = "arXiv:1807.03888"
    learns: ClassVar[bool] = True

    means: Tensor
    precision: Tensor

    def __init__(self, classifier: Classifier, purifier: Purifier) -> None:
        super().__init__(classifier, purifier)
        self.register_buffer("means", torch.empty(0))
        self.register_buffer("precision", torch.empty(0))

    def fit(self, clean: Source, attacked: Source) -> None:
        """Learn means and covariance from clean images."""
        seen, labels = [], []
        with torch.no_grad():
            for images, classes in clean():
                seen.append(logits_and_features(self.classifier, images)[1].cpu())
                labels.append(classes.cpu())
        features, classes = torch.cat(seen).double(), torch.cat(labels)
        counts = classes.bincount(minlength=int(classes.max()) + 1)
        groups = torch.where(counts[classes] >= FEW, classes, -1)
        names, place = np.unique(groups.numpy(), return_inverse=True)
        means = torch.stack([features[place == k].mean(0) for k in range(len(names))])
        found = LedoitWolf(assume_centered=True).fit((features - means[place]).numpy())
        self.means = means.float().to(self.means.device)
        precision = torch.from_numpy(np.asarray(found.precision_)).float()
        self.precision = precision.to(self.precision.device)

    def score(self, images: Tensor, restored: Tensor) -> Tensor:
        """Return the squared distance to the nearest mean for each image (N,)."""
        if self.means.numel() == 0:
            raise InputError("detector", "one that was fitted", "none yet")
        _, features = logits_and_features(self.classifier, images)
        apart = features[:, None] - self.means
        squares = torch.einsum("ncd,de,nce->nc", apart, self.precision, apart)
        return squares.amin(1)
