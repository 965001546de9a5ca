"""Detectors that go by the classifier's answers, beside other ways to compute their scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor

from jernih.classifiers import Classifier
from jernih.detectors import DETECTORS, Detector
from jernih.purifiers import PURIFIERS, Purifier
from jernih.validate import InputError
from tests.conftest import tiny_classifier


def make(name: str, classifier: Classifier, purifier: Purifier, **options: object) -> Detector:
    return DETECTORS.create(name, classifier=classifier, purifier=purifier, **options).eval()


@pytest.fixture
def blur() -> Purifier:
    return PURIFIERS.create("median", size=5).eval()


def probabilities(logits: Tensor, temperature: float = 1.0) -> np.ndarray:
    scaled = logits.detach().numpy().astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(1, keepdims=True)
    return shares


@pytest.mark.parametrize("temperature", [1.0, 10.0])
@pytest.mark.parametrize("outputs", [3, 1])
def test_jensen_shannon_against_scipy(
    images: Tensor, blur: Purifier, temperature: float, outputs: int
) -> None:
    classifier = tiny_classifier(outputs=outputs)
    scores = make("jensen-shannon", classifier, blur, temperature=temperature)(images)
    before = probabilities(classifier(images), temperature)
    after = probabilities(classifier(blur(images)), temperature)
    expected = jensenshannon(before, after, axis=1) ** 2
    assert float(expected.min()) > 0
    np.testing.assert_allclose(scores.detach().numpy(), expected, rtol=1e-4, atol=1e-12)


def test_jensen_shannon_between_sure_answers(images: Tensor) -> None:
    """Answers that are certain and differ are log 2 apart, and without NaN."""
    classifier, blur = tiny_classifier(outputs=1), PURIFIERS.create("bit-depth", bits=1).eval()
    with torch.no_grad():
        head: torch.nn.Linear = classifier.network.head  # type: ignore[assignment]
        head.bias.sub_(classifier(torch.cat([images, blur(images)]))[:, 1].quantile(0.5))
        head.weight.mul_(1e6)
        head.bias.mul_(1e6)
    detector = make("jensen-shannon", classifier, blur, temperature=1.0)
    apart = classifier(images).argmax(1) != classifier(blur(images)).argmax(1)
    scores = detector(images).detach()
    assert bool(apart.any())
    torch.testing.assert_close(scores[apart], torch.full_like(scores[apart], np.log(2)))
    torch.testing.assert_close(scores[~apart], torch.zeros_like(scores[~apart]))


def test_nothing_changes_without_a_change(classifier: Classifier, images: Tensor) -> None:
    still = PURIFIERS.create("identity").eval()
    for name in ("jensen-shannon", "prediction-change", "reconstruction-error"):
        assert make(name, classifier, still)(images).tolist() == [0.0] * len(images)


def test_prediction_change_against_numpy(
    classifier: Classifier, images: Tensor, blur: Purifier
) -> None:
    scores = make("prediction-change", classifier, blur)(images)
    rows = np.arange(len(images))
    before, after = probabilities(classifier(images)), probabilities(classifier(blur(images)))
    own = before.argmax(1)
    odds = [np.log(p[rows, own] / (1 - p[rows, own])) for p in (before, after)]
    np.testing.assert_allclose(scores.detach().numpy(), odds[0] - odds[1], rtol=1e-3, atol=1e-5)
    assert float(scores.detach().abs().max()) > 0


def test_feature_squeezing_takes_the_largest(
    classifier: Classifier, images: Tensor, blur: Purifier
) -> None:
    squeezers = [{"name": "bit-depth", "bits": 2}, "median"]
    detector = make("feature-squeezing", classifier, blur, squeezers=squeezers)
    plain = probabilities(classifier(images))
    each = [
        np.abs(probabilities(classifier(squeeze(images))) - plain).sum(1)
        for squeeze in (PURIFIERS.create("bit-depth", bits=2), PURIFIERS.create("median", size=3))
    ]
    np.testing.assert_allclose(detector(images).detach().numpy(), np.maximum(*each), rtol=1e-4)
    assert detector.describe()["squeezers"] == squeezers


@pytest.mark.parametrize(
    ("squeezers", "message"),
    [
        ([], "at least one"),
        ("median", "at least one"),
        (["jernih-s"], "learn nothing"),
        (["mediann"], "nearest: 'median'"),
        ([{"bits": 3}], "a mapping with a name"),
    ],
)
def test_feature_squeezing_refuses(
    classifier: Classifier, blur: Purifier, squeezers: object, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make("feature-squeezing", classifier, blur, squeezers=squeezers)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_jensen_shannon_refuses(classifier: Classifier, blur: Purifier, temperature: float) -> None:
    with pytest.raises(InputError, match="temperature"):
        make("jensen-shannon", classifier, blur, temperature=temperature)
