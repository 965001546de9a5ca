from __future__ import annotations

from typing import ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn

from jernih.adaptive import Expectation
from jernih.assess import Assessment, AssessmentPlan
from jernih.assess.probe import PROBED, probe, read_probes
from jernih.attacks import FGSM, UniformNoise
from jernih.classifiers import Classifier
from jernih.purifiers.base import Purifier
from jernih.types import Knowledge
from tests.assess.examples import assessment, defended_model, run


class Stopping(Purifier):
    """Rounds and lets no gradient through."""

    name: ClassVar[str] = "stopping"
    learns: Literal["nothing"] = "nothing"

    def restore(self, images: Tensor) -> Tensor:
        return (images * 15).round() / 15


class Drawing(Purifier):
    """Adds noise, whatever the mode."""

    name: ClassVar[str] = "drawing"
    learns: Literal["nothing"] = "nothing"

    def restore(self, images: Tensor) -> Tensor:
        return images + 0.1 * torch.randn_like(images)


def checks(found: Assessment) -> set[str]:
    return {finding.check for finding in found.warnings}


def test_a_sound_model_shows_nothing() -> None:
    found = assessment()
    assert [(p.model, p.n, p.random, p.without_gradient) for p in found.probes] == [
        ("classifier", 8, 0, 0),
        ("defended model", 8, 0, 0),
    ]
    assert not checks(found) & {"random model", "zero gradient"}


def test_every_assessment_finds_a_purifier_without_a_gradient() -> None:
    found = run(defended_model(Stopping(), detector=False))
    assert [p.without_gradient for p in found.probes] == [0, 8]
    assert "zero gradient" in checks(found)


def test_every_assessment_finds_a_random_purifier() -> None:
    before = torch.get_rng_state()
    model = defended_model(Drawing(), detector=False)
    noise = torch.rand(20, 3, 32, 32)
    row = probe(model, noise, torch.zeros(20).long(), noise, gradients=True)
    assert row.tolist() == [PROBED, PROBED, 0, 0, 0, 0]
    torch.set_rng_state(before)
    found = run(model)
    assert [p.random for p in found.probes] == [0, 8]
    assert "random model" in checks(found)


class Unclamped(Stopping):
    """Brightens beyond white."""

    name: ClassVar[str] = "unclamped"

    def forward(self, images: Tensor) -> Tensor:
        return images + 0.5


def test_every_assessment_finds_a_purifier_that_leaves_the_range() -> None:
    found = run(defended_model(Unclamped(), detector=False))
    assert [p.outside for p in found.probes] == [0, 8]
    assert "out of range" in checks(found)


def test_a_mean_over_draws_is_known_as_one(images: Tensor, labels: Tensor) -> None:
    class Shaking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x + torch.randn_like(x)).mean((2, 3))

    for network, averaged in ((Shaking(), False), (Expectation(Shaking(), 2), True)):
        classifier = Classifier(network, "abc").eval()
        row = probe(classifier, images, labels, images, gradients=False)
        (found,) = read_probes(row[None])
        assert found.random == 6
        assert found.averaged is averaged


@pytest.mark.parametrize("knowledge", ["oblivious", "adaptive"])
def test_gradients_are_asked_of_what_is_attacked_by_them(knowledge: Knowledge) -> None:
    plan = AssessmentPlan(UniformNoise(), (0.1,), batch_size=8)
    assert [p.without_gradient for p in run(plan=plan).probes] == [None, None]
    only = AssessmentPlan(FGSM(), (0.1,), (knowledge,), batch_size=8)
    asked = [p.without_gradient is not None for p in run(plan=only).probes]
    assert asked == [knowledge == "oblivious", knowledge == "adaptive"]
