"""Mahalanobis distances beside numpy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from jernih.classifiers import Classifier
from jernih.classifiers.features import logits_and_features
from jernih.detectors import Mahalanobis
from jernih.detectors.mahalanobis import FEW
from jernih.purifiers import Identity
from jernih.randomness import generator


def test_against_numpy(classifier: Classifier, images: Tensor) -> None:
    clean = torch.rand(60, 3, 16, 16, generator=generator("mahalanobis"))
    labels = torch.arange(60) % 2
    labels[:5] = 2  # too few for a mean of their own
    detector = Mahalanobis(classifier, Identity()).eval()
    detector.fit(lambda: [(clean[:31], labels[:31]), (clean[31:], labels[31:])], lambda: [])

    def features(some: Tensor) -> np.ndarray:
        found: np.ndarray = logits_and_features(classifier, some)[1].detach().double().numpy()
        return found

    seen, groups = features(clean), labels.numpy()
    means = np.stack([seen[groups == k].mean(0) for k in range(3)])
    covariance, _ = ledoit_wolf(seen - means[groups], assume_centered=True)
    inverse = np.linalg.inv(covariance)
    expected = [min((f - m) @ inverse @ (f - m) for m in means) for f in features(images)]
    np.testing.assert_allclose(detector(images).detach().numpy(), expected, rtol=1e-3)
    assert detector.means.shape[0] == 3
    assert int((labels == 2).sum()) < FEW


def test_one_mean_for_classes_of_one_image(classifier: Classifier) -> None:
    clean = torch.rand(20, 3, 16, 16, generator=generator("single"))
    labels = torch.arange(20)
    detector = Mahalanobis(classifier, Identity()).eval()
    detector.fit(lambda: [(clean, labels)], lambda: [])
    assert detector.means.shape[0] == 1
    mean = logits_and_features(classifier, clean)[1].mean(0)
    torch.testing.assert_close(detector.means[0], mean, rtol=1e-4, atol=1e-5)


def test_far_images_score_higher(classifier: Classifier) -> None:
    near = 0.4 + 0.2 * torch.rand(80, 3, 16, 16, generator=generator("near"))
    detector = Mahalanobis(classifier, Identity()).eval()
    detector.fit(lambda: [(near[:60], classifier(near[:60]).argmax(1))], lambda: [])
    far = torch.rand(20, 3, 16, 16, generator=generator("far")).round()
    scores = [detector(some).detach().median() for some in (far, near[60:])]
    assert float(scores[0]) > 2 * float(scores[1])


def test_gradients_reach_the_images(classifier: Classifier, images: Tensor) -> None:
    detector = Mahalanobis(classifier, Identity()).eval()
    detector.fit(lambda: [(images, torch.zeros(6, dtype=torch.int64))], lambda: [])
    leaf = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(detector(leaf).sum(), leaf)
    assert bool(slope.flatten(1).any(1).all())


def test_features_are_what_the_last_layer_gets(classifier: Classifier, images: Tensor) -> None:
    logits, features = logits_and_features(classifier, images)
    torch.testing.assert_close(logits, classifier(images))
    head = classifier.network.head
    torch.testing.assert_close(head(features), logits)  # type: ignore[operator]
    hooks = [h for m in classifier.modules() for h in m._forward_pre_hooks.values()]
    assert hooks == []


@pytest.mark.parametrize("batch", [1, 3])
def test_batches_do_not_matter(classifier: Classifier, images: Tensor, batch: int) -> None:
    detector = Mahalanobis(classifier, Identity()).eval()
    detector.fit(lambda: [(images, torch.zeros(6, dtype=torch.int64))], lambda: [])
    parts = torch.cat([detector(images[k : k + batch]) for k in range(0, 6, batch)])
    torch.testing.assert_close(parts, detector(images), rtol=1e-3, atol=1e-3)
