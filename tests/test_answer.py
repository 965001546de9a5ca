"""Answers of a defended model for images of any size."""

from __future__ import annotations

import pytest
import torch

from jernih.answer import Answerer
from jernih.classifiers import load_classifier
from jernih.data.modify import Prepare
from jernih.defended import Defended
from jernih.detectors import DETECTORS
from jernih.purifiers import PURIFIERS
from jernih.randomness import generator, seeded
from jernih.types import Policy
from jernih.validate import InputError

SIZES = [(40, 60), (32, 32), (64, 50), (32, 32), (33, 32)]
IMAGES = [torch.rand(3, *size, generator=generator(k)) for k, size in enumerate(SIZES)]


def model(policy: Policy = "restore", prepare: Prepare | None = None) -> Defended:
    with seeded(0):
        classifier = load_classifier("test_efficientnet", ["a", "b", "c"])
        purifier = PURIFIERS.create("jpeg", quality=30).eval()
    detector = DETECTORS.create("jensen-shannon", classifier=classifier, purifier=purifier)
    with torch.no_grad():
        detector.calibrate(
            detector(torch.rand(20, 3, 32, 32, generator=generator("calm"))), fpr=0.5
        )
    return Defended(classifier, purifier, detector, policy, prepare=prepare).eval()


@pytest.mark.parametrize("prepare", [None, Prepare(48, "pad")])
@pytest.mark.parametrize("policy", ["restore", "restore-flagged", "reject-flagged"])
def test_each_image_as_if_alone(policy: Policy, prepare: Prepare | None) -> None:
    defended = model(policy, prepare)
    answers = Answerer(defended, "cpu")(IMAGES)
    for image, answer in zip(IMAGES, answers, strict=True):
        seen = image if prepare is None else prepare(image)
        alone = defended.inspect(seen[None])
        assert torch.equal(answer.seen, seen)
        torch.testing.assert_close(answer.restored, alone.restored[0])
        shares = alone.logits.softmax(1)[0]
        torch.testing.assert_close(
            torch.tensor(list(answer.probabilities.values())), shares, atol=1e-4, rtol=0
        )
        assert answer.label == "abc"[answer.index]
        assert answer.index == int(shares.argmax())
        assert answer.action == alone.actions[0]
        assert alone.flagged is not None
        assert answer.flagged == bool(alone.flagged[0])
        assert answer.threshold == defended.detector.threshold  # type: ignore[union-attr]
        assert answer.areas is None


def test_without_a_detector() -> None:
    defended = model()
    bare = Defended(defended.classifier, defended.purifier).eval()
    answer = Answerer(bare, "cpu")(IMAGES[:1])[0]
    assert (answer.suspicion, answer.threshold, answer.flagged) == (None, None, None)
    assert answer.action == "restored"


def test_areas_are_those_of_the_image_classified() -> None:
    from jernih.assess.saliency import important_areas

    defended = model()
    answer = Answerer(defended, "cpu")(IMAGES[:1], areas=True)[0]
    expected = important_areas(
        defended.classifier, answer.restored[None], torch.tensor([answer.index])
    )
    assert answer.areas is not None
    torch.testing.assert_close(answer.areas, expected[0])
    assert float(answer.areas.max()) > 0


def test_the_model_stays_as_it_is() -> None:
    defended = model()
    before = {name: value.clone() for name, value in defended.state_dict().items()}
    Answerer(defended, "cpu")(IMAGES, areas=True)
    assert all(torch.equal(value, before[name]) for name, value in defended.state_dict().items())
    assert not Answerer(defended, "cpu")([])


@pytest.mark.parametrize("image", [torch.rand(32, 32), torch.rand(1, 3, 8, 8), "image"])
def test_what_is_no_image(image: object) -> None:
    with pytest.raises(InputError, match="image"):
        Answerer(model(), "cpu")([image])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        Answerer(model(), "cpu")([IMAGES[0] * 3])
