"""Purifier, classifier and detector as one model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jernih.attacks import FGSM
from jernih.classifiers import Classifier
from jernih.defended import Defended
from jernih.detectors import ReconstructionError
from jernih.purifiers import ConvAutoencoder, Identity
from jernih.randomness import seeded
from jernih.validate import InputError


def defended(classifier: Classifier) -> Defended:
    with seeded(0):
        purifier = ConvAutoencoder(widths=(4, 8))
    return Defended(classifier, purifier, ReconstructionError(classifier, purifier)).eval()


def test_identity_purifier_equals_undefended(classifier: Classifier, images: Tensor) -> None:
    assert torch.equal(Defended(classifier, Identity()).eval()(images), classifier(images))


def test_classifies_what_the_purifier_restored(classifier: Classifier, images: Tensor) -> None:
    model = defended(classifier)
    assert torch.equal(model(images), classifier(model.purifier(images)))


def test_inspection(classifier: Classifier, images: Tensor) -> None:
    model = defended(classifier)
    first = model.inspect(images)
    assert torch.equal(first.logits, model(images))
    assert torch.equal(first.restored, model.purifier(images))
    assert model.detector is not None
    assert first.scores is not None
    assert torch.equal(first.scores, model.detector(images))
    assert first.flagged is None
    model.detector.calibrate(first.scores, fpr=0.5)
    flagged = model.inspect(images).flagged
    assert flagged is not None
    assert 0 < int(flagged.sum()) < 6
    assert Defended(classifier, Identity()).eval().inspect(images).scores is None
    with pytest.raises(InputError, match="images"):
        model.inspect(images * 3)


def test_only_flagged_images_are_restored(classifier: Classifier, images: Tensor) -> None:
    always = defended(classifier)
    assert always.detector is not None
    always.detector.calibrate(always.detector(images).detach(), fpr=0.5)
    model = Defended(classifier, always.purifier, always.detector, "restore-flagged").eval()
    inspection = model.inspect(images)
    flagged = inspection.flagged
    assert flagged is not None
    assert 0 < int(flagged.sum()) < 6
    restored, plain = always(images), classifier(images)
    assert not torch.allclose(restored, plain)
    expected = torch.where(flagged[:, None], restored, plain)
    torch.testing.assert_close(model(images), expected)
    torch.testing.assert_close(inspection.logits, expected)
    assert torch.equal(inspection.restored, always.purifier(images))
    words = {True: "restored", False: "as it came"}
    assert inspection.actions == tuple(words[flag] for flag in flagged.tolist())
    ready = model.frozen()
    assert ready.policy == "restore-flagged"
    torch.testing.assert_close(ready(images), expected, rtol=0, atol=1e-4)


def test_flagged_images_are_rejected(classifier: Classifier, images: Tensor) -> None:
    always = defended(classifier)
    assert always.inspect(images).actions == ("restored",) * 6
    assert always.detector is not None
    model = Defended(classifier, always.purifier, always.detector, "reject-flagged").eval()
    with pytest.raises(InputError, match="calibrated threshold"):
        model.inspect(images)
    always.detector.calibrate(always.detector(images).detach(), fpr=0.5)
    inspection = model.inspect(images)
    assert inspection.flagged is not None
    words = {True: "rejected", False: "restored"}
    assert inspection.actions == tuple(words[flag] for flag in inspection.flagged.tolist())
    assert torch.equal(model(images), always(images))


def test_policies_are_checked(classifier: Classifier) -> None:
    with pytest.raises(InputError, match="policy: expected 'restore' without a detector"):
        Defended(classifier, Identity(), policy="reject-flagged")
    with pytest.raises(InputError, match="nearest: 'reject-flagged'"):
        Defended(classifier, Identity(), policy="reject-flaged")  # type: ignore[arg-type]


def test_frozen_form_is_the_same_and_keeps_the_threshold(
    classifier: Classifier, images: Tensor
) -> None:
    model = defended(classifier)
    assert model.detector is not None
    model.detector.calibrate(model.detector(images).detach(), fpr=0.5)
    ready = model.frozen()
    torch.testing.assert_close(ready(images), model(images), rtol=0, atol=1e-4)
    assert not any(p.requires_grad for p in ready.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert ready.detector is not None
    assert ready.detector.purifier is ready.purifier
    assert ready.detector.threshold == model.detector.threshold


def test_adaptive_attack_goes_through_the_purifier(
    classifier: Classifier, images: Tensor, labels: Tensor
) -> None:
    model = defended(classifier)
    adaptive = FGSM(eps=0.05)(model, images, labels)
    oblivious = FGSM(eps=0.05)(classifier, images, labels)
    assert not torch.equal(adaptive.images, oblivious.images)
    assert torch.equal(adaptive.predictions, model(adaptive.images).argmax(1))


def test_detector_of_another_purifier_is_refused(classifier: Classifier) -> None:
    detector = ReconstructionError(classifier, Identity())
    with pytest.raises(InputError, match="this very purifier"):
        Defended(classifier, Identity(), detector)
