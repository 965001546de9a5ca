"""What every registered detector has to hold, and how thresholds are set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from jernih.classifiers import Classifier
from jernih.defended import Defended
from jernih.detectors import DETECTORS, Detector, Source
from jernih.purifiers import ConvAutoencoder
from jernih.randomness import generator, seeded
from jernih.validate import InputError


def make(name: str, classifier: Classifier) -> Detector:
    with seeded(0):
        purifier = ConvAutoencoder(widths=(4, 8))
    detector = DETECTORS.create(name, classifier=classifier, purifier=purifier).eval()
    if detector.learns:
        detector.fit(*sources(classifier))
    return detector


def sources(classifier: Classifier) -> tuple[Source, Source]:
    """Images to fit to, and others moved by noise."""
    images = torch.rand(48, 3, 16, 16, generator=generator("fit"))
    labels = classifier(images).argmax(1)
    noise = 0.3 * torch.randn(images.shape, generator=generator("noise"))
    moved = (images + noise).clamp(0, 1)

    def batches(some: Tensor) -> Source:
        return lambda: [(some[k : k + 20], labels[k : k + 20]) for k in range(0, len(some), 20)]

    return batches(images), batches(moved)


def plain(detector: Detector) -> dict[str, object]:
    """The options that are not models."""
    known = detector.describe()
    return {key: value for key, value in known.items() if key != "name"}


@pytest.mark.parametrize("name", DETECTORS.names())
class TestContract:
    def test_one_finite_score_an_image(
        self, name: str, classifier: Classifier, images: Tensor
    ) -> None:
        detector = make(name, classifier)
        state = torch.get_rng_state()
        scores = detector(images)
        assert scores.shape == (6,)
        assert scores.dtype is torch.float32
        assert bool(torch.isfinite(scores).all())
        assert torch.equal(scores, detector(images))
        torch.testing.assert_close(detector(images[3:4]), scores[3:4])
        assert torch.equal(scores, detector.score(images, detector.purifier(images)))
        assert torch.equal(state, torch.get_rng_state())

    def test_refuses_to_flag_without_a_threshold(
        self, name: str, classifier: Classifier, images: Tensor
    ) -> None:
        detector = make(name, classifier)
        assert detector.threshold is None
        with pytest.raises(InputError, match="calibrated threshold"):
            detector.flag(detector(images))

    def test_what_is_learnt_can_be_restored(
        self, name: str, classifier: Classifier, images: Tensor
    ) -> None:
        detector = make(name, classifier)
        learnt = detector.learnt()
        assert bool(learnt) == detector.learns
        assert not any("classifier" in key or "purifier" in key for key in learnt)
        again = DETECTORS.create(
            name, classifier=classifier, purifier=detector.purifier, **plain(detector)
        ).eval()
        if detector.learns:
            with pytest.raises(InputError, match="fitted"):
                again(images)
        else:
            with pytest.raises(NotImplementedError, match="learns nothing"):
                again.fit(*sources(classifier))
        again.restore_learnt(learnt)
        assert torch.equal(again(images), detector(images))
        model = Defended(classifier, detector.purifier, detector).eval().frozen()
        assert model.detector is not None
        torch.testing.assert_close(model.detector(images), detector(images), rtol=1e-3, atol=1e-3)
        with pytest.raises(InputError, match="learnt"):
            again.restore_learnt({**learnt, "another": torch.zeros(1)})

    def test_describes_itself(self, name: str, classifier: Classifier) -> None:
        described = make(name, classifier).describe()
        assert described["name"] == name
        assert "classifier" not in described
        assert DETECTORS.get(name).reference


def test_reconstruction_error_against_numpy(classifier: Classifier, images: Tensor) -> None:
    for norm, order in (("l2", 2), ("l1", 1)):
        with seeded(0):
            purifier = ConvAutoencoder(widths=(4, 8)).eval()
        detector = DETECTORS.create(
            "reconstruction-error", classifier=classifier, purifier=purifier, norm=norm
        )
        difference = (images - purifier(images)).detach().numpy().reshape(6, -1)
        expected = np.linalg.norm(difference.astype(np.float64), ord=order, axis=1)
        np.testing.assert_allclose(detector(images).detach().numpy(), expected, rtol=1e-5)


def test_calibration_keeps_the_false_positive_rate(classifier: Classifier) -> None:
    detector = make("reconstruction-error", classifier)
    source = generator("calibration")
    shares = []
    for _ in range(200):
        calibration = detector.calibrate(torch.rand(99, generator=source), fpr=0.05)
        shares.append(float(detector.flag(torch.rand(1000, generator=source)).float().mean()))
    assert (calibration.n, calibration.fpr) == (99, 0.05)
    assert 0.043 < float(np.mean(shares)) < 0.055


def test_calibration_picks_the_right_rank(classifier: Classifier) -> None:
    detector = make("reconstruction-error", classifier)
    scores = torch.arange(1.0, 20.0)  # 19 scores: the 19th of them at 5 %
    assert detector.calibrate(scores, fpr=0.05).threshold == 19
    assert detector.calibrate(scores, fpr=0.5).threshold == 10
    assert detector.flag(torch.tensor([10.0, 10.1])).tolist() == [False, True]
    raised = detector.calibrate(scores, 0.05, [scores - 3, scores + 4])
    assert (raised.threshold, raised.fpr, raised.n) == (23, 0.05, len(scores))
    with pytest.raises(InputError, match="finite scores"):
        detector.calibrate(scores, 0.05, [scores * float("nan")])


def test_calibration_refuses_too_few_or_bad_scores(classifier: Classifier) -> None:
    detector = make("reconstruction-error", classifier)
    with pytest.raises(InputError, match=r"at least 19 clean images for fpr 0\.05; got 18"):
        detector.calibrate(torch.rand(18), fpr=0.05)
    with pytest.raises(InputError, match="finite scores"):
        detector.calibrate(torch.tensor([1.0, float("nan")]))
    with pytest.raises(InputError, match="fpr"):
        detector.calibrate(torch.rand(100), fpr=0.0)
