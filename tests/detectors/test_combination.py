"""Several detectors as one."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from jernih.attacks import FGSM
from jernih.classifiers import Classifier
from jernih.detectors import DETECTORS, Combination, Source
from jernih.purifiers import Median
from jernih.randomness import generator
from jernih.validate import InputError


def drawn(count: int, name: str) -> Tensor:
    smooth = torch.rand(count, 3, 4, 4, generator=generator(name))
    return torch.nn.functional.interpolate(smooth, size=16, mode="bilinear")


def both(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    return images, FGSM(0.1)(classifier, images, classifier(images).argmax(1)).images


def source(images: Tensor) -> Source:
    return lambda: [(images, torch.zeros(len(images), dtype=torch.int64))]


def test_tells_attacked_from_clean(classifier: Classifier) -> None:
    purifier = Median().eval()
    clean, attacked = both(classifier, drawn(80, "fit"))
    detector = Combination(classifier, purifier, ["reconstruction-error", "mahalanobis"]).eval()
    detector.fit(source(clean), source(attacked))
    others = both(classifier, drawn(60, "test"))
    scores = [detector(images).detach() for images in others]
    area = roc_auc_score([0] * 60 + [1] * 60, torch.cat(scores))
    assert area > 0.95
    alone = DETECTORS.create("reconstruction-error", classifier=classifier, purifier=purifier)
    expected = alone(others[0])
    found = detector.parts[0](others[0])
    torch.testing.assert_close(found, expected)
    assert set(detector.learnt()) == {
        "centre", "spread", "weights", "offset", "parts.1.means", "parts.1.precision"
    }  # fmt: skip


def test_is_a_weighted_sum(classifier: Classifier, images: Tensor) -> None:
    clean, attacked = both(classifier, drawn(40, "sum"))
    detector = Combination(classifier, Median().eval()).eval()
    detector.fit(source(clean), source(attacked))
    parts = torch.stack([part(images) for part in detector.parts], 1)
    clean_parts = torch.stack([part(clean) for part in detector.parts], 1)
    low, middle, high = (clean_parts.quantile(q, dim=0) for q in (0.25, 0.5, 0.75))
    scaled = (parts - middle) / (high - low)
    expected = scaled @ detector.weights + detector.offset
    torch.testing.assert_close(detector(images), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("detectors", "message"),
    [
        (["mahalanobis"], "at least two"),
        ("mahalanobis", "at least two"),
        (["mahalanobis", "combination"], "other kinds"),
        (["mahalanobis", "mahalanobi"], "nearest: 'mahalanobis'"),
        (["mahalanobis", {"temperature": 3}], "detector"),
    ],
)
def test_refuses(classifier: Classifier, detectors: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Combination(classifier, Median(), detectors)  # type: ignore[arg-type]
