"""One image attacked and restored on the spot."""

from __future__ import annotations

import json

import pytest
import torch

from jernih.answer import Answerer
from jernih.attacks import FGSM
from jernih.storage import to_json
from jernih.trial import attempt
from jernih.types import Knowledge
from jernih.validate import InputError
from tests.test_answer import IMAGES, model


@pytest.mark.parametrize("knowledge", ["oblivious", "adaptive"])
def test_what_it_tells_is_what_the_models_say(knowledge: Knowledge) -> None:
    defended = model()
    answerer = Answerer(defended, "cpu")
    image = IMAGES[0]
    trial = attempt(answerer, image, "fgsm", "8/255", knowledge)
    batch = image[None]
    target = defended if knowledge == "adaptive" else defended.classifier
    label = target(batch).argmax(1)
    expected = FGSM("8/255")(target, batch, label).images
    rounded = (expected * 255).round() / 255
    assert torch.equal(trial.attacked.seen, rounded[0])
    assert trial.told == answerer.classes[int(label)]
    alone = defended.classifier(rounded).softmax(1)[0]
    torch.testing.assert_close(
        torch.tensor(list(trial.attacked_alone.values())), alone, atol=1e-4, rtol=0
    )
    torch.testing.assert_close(trial.attacked.restored, defended.purifier(rounded)[0])
    assert trial.threat is not None
    assert trial.threat.knowledge == knowledge
    assert trial.psnr_attacked == pytest.approx(
        float(-10 * (rounded - batch).square().mean().log10()), abs=1e-3
    )


def test_nothing_attacked() -> None:
    trial = attempt(Answerer(model(), "cpu"), IMAGES[1], None)
    assert trial.attack is None
    assert trial.threat is None
    assert trial.psnr_attacked is None
    assert torch.equal(trial.attacked.seen, IMAGES[1])
    assert trial.attacked_alone == trial.clean_alone


def test_the_same_seed_gives_the_same_trial() -> None:
    answerer = Answerer(model(), "cpu")
    options = {"steps": 3, "stop_early": False}
    first, again, other = (
        attempt(answerer, IMAGES[1], "pgd", 0.03, options=options, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first.attacked.seen, again.attacked.seen)
    assert not torch.equal(first.attacked.seen, other.attacked.seen)


def test_as_json() -> None:
    trial = attempt(Answerer(model(), "cpu"), IMAGES[1], areas=True)
    plain = json.loads(to_json(trial.to_dict()))
    assert plain["threat"] == {"knowledge": "oblivious", "norm": "linf", "eps": 0.01}
    assert plain["attack"]["name"] == "fgsm"
    assert set(plain["attacked"]["defended"]["probabilities"]) == {"a", "b", "c"}
    assert plain["n"] == 1
    assert trial.clean.areas is not None


def test_what_is_refused() -> None:
    answerer = Answerer(model(), "cpu")
    with pytest.raises(InputError, match="nearest: 'fgsm'"):
        attempt(answerer, IMAGES[1], "fgms")
    with pytest.raises(InputError, match="knowledge"):
        attempt(answerer, IMAGES[1], knowledge="all")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="eps"):
        attempt(answerer, IMAGES[1], eps=2)
