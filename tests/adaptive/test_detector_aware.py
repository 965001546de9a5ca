from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from jernih.adaptive import DetectorAware, Evasion, evade
from jernih.attacks import APGD, FGSM, PGD, Attack, CarliniWagner, distance
from jernih.classifiers import Classifier
from jernih.defended import Defended
from jernih.detectors import ReconstructionError
from jernih.purifiers import Identity, Median
from jernih.randomness import seeded
from jernih.types import Threat
from jernih.validate import InputError
from tests.attacks.known import Digits, linear_model, middling
from tests.conftest import tiny_classifier


class Given(nn.Module):
    """Gives what it was made with."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> Tensor:
        return self.answer


class Residual(nn.Module):
    """Distance from the plane of the images' first principal directions."""

    def __init__(self, images: Tensor, kept: int = 20) -> None:
        super().__init__()
        flat = images.flatten(1)
        self.centre = flat.mean(0)
        self.plane = torch.linalg.svd(flat - self.centre, full_matrices=False).Vh[:kept]
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1) - self.centre
        size: Tensor = torch.linalg.vector_norm(flat - flat @ self.plane.T @ self.plane, dim=1)
        return size


numbers = st.floats(-1e6, 1e6, width=32)


@given(numbers, numbers, numbers, st.one_of(numbers, st.floats(-(2**-24), 2**-24, width=32)))
def test_flagged_wins_exactly_above_the_threshold(
    first: float, second: float, threshold: float, excess: float
) -> None:
    score = torch.tensor([threshold + excess])
    logits = torch.tensor([[first, second]])
    out = DetectorAware(Given(logits), Given(score), threshold)(torch.zeros(1, 3, 2, 2))
    assert out.shape == (1, 3)
    assert torch.equal(out[:, :2], logits)
    assert (int(out.argmax(1)) == 2) == bool(score > threshold)
    if bool(score <= threshold):
        assert int(out.argmax(1)) == int(logits.argmax(1))


def test_values_and_gradients_are_those_of_the_formula() -> None:
    images = middling(8)
    model, detector = linear_model(), Residual(images, 3)
    leaf = images.clone().requires_grad_(True)
    ours = DetectorAware(model, detector, 0.1, scale=3.0)(leaf)
    logits = model(leaf)
    plain = torch.cat([logits, (logits.max(1).values + 3 * (detector(leaf) - 0.1))[:, None]], dim=1)
    torch.testing.assert_close(ours, plain)
    weight = torch.arange(5.0)
    for_ours = torch.autograd.grad((weight * ours).sum(), leaf)[0]
    for_plain = torch.autograd.grad((weight * plain).sum(), leaf)[0]
    torch.testing.assert_close(for_ours, for_plain)


class Counting(Median):
    """A median filter that counts how often it is asked."""

    name = "counting"
    asked = 0

    def restore(self, images: Tensor) -> Tensor:
        Counting.asked += 1
        return super().restore(images)


def test_a_defended_models_own_detector_shares_the_restoration(images: Tensor) -> None:
    classifier = tiny_classifier()
    purifier = Counting()
    detector = ReconstructionError(classifier, purifier)
    scores = detector(images)
    detector.calibrate(scores, 0.5)
    Counting.asked = 0
    shared = DetectorAware(Defended(classifier, purifier, detector).eval(), detector)(images)
    assert Counting.asked == 1
    apart = DetectorAware(Defended(classifier, purifier).eval(), detector, detector.threshold)(
        images
    )
    assert torch.equal(shared, apart)


@dataclass(frozen=True)
class Guarded:
    model: nn.Module
    detector: Residual
    threshold: float
    images: Tensor
    labels: Tensor


@pytest.fixture(scope="module")
def guarded(digits: Digits) -> Guarded:
    detector = Residual(digits.images)
    threshold = float(detector(digits.images).quantile(0.9))
    return Guarded(digits.model, detector, threshold, digits.images[:24], digits.labels[:24])


def attempt(
    given: Guarded, attack: Attack, threshold: float | None = None, **options: Any
) -> Evasion:
    limit = given.threshold if threshold is None else threshold
    return evade(attack, given.model, given.detector, limit, given.images, given.labels, **options)


def pgd(eps: float = 0.2) -> PGD:
    return PGD(eps, steps=20, random_start=False, targeted=True)


def test_an_unaware_attack_is_flagged_and_an_aware_one_is_not(guarded: Guarded) -> None:
    images, labels = guarded.images, guarded.labels
    unaware = PGD(0.2, steps=20, random_start=False)(guarded.model, images, labels)
    passed = unaware.success & (guarded.detector(unaware.images) <= guarded.threshold)
    assert int(unaware.success.sum()) > 20
    assert int(passed.sum()) < 8
    result = attempt(guarded, pgd())
    assert int(result.success.sum()) > 20
    assert torch.equal(result.wrong, guarded.model(result.images).argmax(1) != labels)
    assert torch.equal(result.flagged, guarded.detector(result.images) > guarded.threshold)
    assert torch.equal(result.success, result.wrong & ~result.flagged)
    assert float(result.distances.max()) <= 0.2 + 1e-6
    torch.testing.assert_close(result.distances, distance(images, result.images, "linf"))
    assert result.threat == Threat("linf", 0.2, "oblivious", detector_aware=True)


def test_more_targets_and_scales_can_only_help(guarded: Guarded) -> None:
    options: list[dict[str, Any]] = [
        {"targets": 1, "scales": (0.1,)},
        {"targets": 9, "scales": (0.1,)},
        {"targets": 9, "scales": (0.1, 10.0)},
    ]
    found = [attempt(guarded, pgd(0.15), **each).success for each in options]
    for less, more in pairwise(found):
        assert bool((more | ~less).all())
        assert int(more.sum()) > int(less.sum())


@pytest.mark.parametrize(
    "attack",
    [
        CarliniWagner(targeted=True, steps=60, searches=3, initial=1.0),
        APGD(0.2, targeted=True, steps=20),
    ],
)
def test_any_attack_with_a_targeted_form_will_do(attack: Attack, guarded: Guarded) -> None:
    result = attempt(guarded, attack, targets=1, scales=(1.0,))
    assert int(result.success.sum()) > 12
    assert result.threat.norm == attack.norm


def test_where_nothing_is_found_the_image_stays_clean(guarded: Guarded) -> None:
    result = attempt(guarded, pgd(0.1))
    failed = ~result.success
    assert 0 < int(failed.sum()) < 24
    assert torch.equal(result.images[failed], guarded.images[failed])
    assert bool((result.distances[failed] == 0).all())


def test_slack_keeps_a_distance_from_the_threshold(guarded: Guarded) -> None:
    result = attempt(guarded, pgd(), slack=0.1)
    assert int(result.success.sum()) > 12
    scores = result.scores[result.success]
    assert float(scores.median()) <= guarded.threshold - 0.1
    assert float(attempt(guarded, pgd()).scores.max()) > guarded.threshold - 0.1


def test_nothing_passes_a_detector_that_flags_all(guarded: Guarded) -> None:
    result = attempt(guarded, FGSM(0.3, targeted=True), -1.0)
    assert not bool(result.success.any())
    assert torch.equal(result.images, guarded.images)


def test_what_is_wrong_and_unflagged_already_stays_as_it_is(guarded: Guarded) -> None:
    mislabelled = replace(guarded, labels=(guarded.labels + 1) % 10)
    result = attempt(mislabelled, FGSM(0.3, targeted=True), 1e3)
    assert bool(result.success.all())
    assert torch.equal(result.images, guarded.images)


@pytest.mark.parametrize("outputs", [1, 2])
def test_two_classes_and_a_single_sigmoid_logit(outputs: int) -> None:
    with seeded("one logit"):
        network = nn.Sequential(nn.Flatten(), nn.Linear(48, outputs))
    classifier, images = Classifier(network, ("a", "b")).eval(), middling(8)
    defended = Defended(classifier, Identity()).eval()
    detector = Residual(images, 4)
    labels = defended(images).argmax(1)
    result = evade(pgd(0.4), defended, detector, 0.5, images, labels, targets=5)
    assert result.logits.shape == (8, 2)
    assert int(result.success.sum()) == 8
    assert float(detector(result.images).max()) <= 0.5
    assert result.threat.knowledge == "adaptive"


def test_the_models_stay_as_they_are(classifier: Classifier, images: Tensor) -> None:
    labels = classifier(images).argmax(1)
    attack, detector = FGSM(0.1, targeted=True), Residual(images, 2)
    with pytest.raises(InputError, match="evaluation mode"):
        evade(attack, classifier.train(), detector, 9.0, images, labels)
    assert classifier.training
    classifier.eval()
    evade(attack, classifier, detector, 9.0, images, labels)
    assert all(p.grad is None for p in classifier.parameters())


def test_bad_arguments_are_refused(classifier: Classifier, images: Tensor, labels: Tensor) -> None:
    attack, detector = FGSM(0.1, targeted=True), Residual(images, 2)
    with pytest.raises(InputError, match="targeted"):
        evade(FGSM(0.1), classifier, detector, 1.0, images, labels)
    with pytest.raises(InputError, match="scales"):
        evade(attack, classifier, detector, 1.0, images, labels, scales=())
    with pytest.raises(InputError, match="targets"):
        evade(attack, classifier, detector, 1.0, images, labels, targets=0)
    with pytest.raises(InputError, match="threshold"):
        evade(attack, classifier, detector, None, images, labels)
    with pytest.raises(InputError, match="threshold"):
        DetectorAware(classifier, ReconstructionError(classifier, Identity()))
    with pytest.raises(InputError, match="scale"):
        DetectorAware(classifier, detector, 1.0, scale=0)
    with pytest.raises(InputError, match="scores of shape"):
        DetectorAware(classifier, nn.Identity(), 1.0)(images)
