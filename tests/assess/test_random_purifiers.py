"""Random purifiers: attackers climb the mean over draws, and results stay the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor

from jernih.adaptive import Expectation
from jernih.assess.plan import SurveyPlan
from jernih.assess.survey import survey
from jernih.defended import Defended
from jernih.purifiers.base import Purifier
from jernih.types import Threat
from jernih.validate import InputError
from tests.assess.examples import Scenes, Smooth, defended_model, plan, run
from tests.assess.test_run import same_observations

AWARE = Threat("linf", 2 / 255, "adaptive")


class Torn(Purifier):
    """Smooths an image, or leaves it, as a coin says."""

    name: ClassVar[str] = "torn"
    learns: Literal["nothing"] = "nothing"

    def restore(self, images: Tensor) -> Tensor:
        smooth = Smooth().restore(images)
        heads = torch.rand(len(images), 1, 1, 1) < 0.5
        return torch.where(heads, smooth, images)


def torn() -> Defended:
    return defended_model(Torn(), detector=False)


def test_the_mean_over_draws_is_a_stronger_guide() -> None:
    """A draw that smooths shows no checkerboard; the mean of eight nearly always does."""
    one, eight = (run(torn(), n=60, plan=plan(draws=draws)) for draws in (1, 8))
    # The classifier alone tells whether an attacked image carries the checkerboard.
    rates = [found.condition("attacked", AWARE).accuracy.value for found in (one, eight)]
    assert rates[0] > 0.2
    assert rates[1] < 0.1
    assert [p.averaged for p in one.probes] == [False, False]
    assert [p.averaged for p in eight.probes] == [False, True]
    told = [{finding.check for finding in found.warnings} for found in (one, eight)]
    assert "random model" in told[0]
    assert "random model" not in told[1]


def test_outcomes_are_single_draws_and_not_their_mean() -> None:
    made = SurveyPlan("draws", plan(draws=16, knowledge=("adaptive",), epsilons=("4/255",)))
    model = torn()
    found = survey(model.classifier, {"main": model.purifier}, Scenes(60), made)
    (row,) = (row for row in found.rows if row.purifier == "main" and row.threat)
    # Every image carries the checkerboard; whether that is seen is the coin's to say.
    assert 0.3 < row.accuracy.value < 0.7


def test_resumed_as_undisturbed(tmp_path: Path) -> None:
    whole = run(torn())
    with pytest.raises(KeyboardInterrupt):
        run(torn(), scenes=Scenes(20, fails_at=17), parts=tmp_path, key="k")
    torch.rand(3)  # what happened to torch's own numbers in between does not matter
    assert same_observations(run(torn(), parts=tmp_path, key="k"), whole)


def test_a_survey_resumed_as_undisturbed(tmp_path: Path) -> None:
    made, model = SurveyPlan("draws", plan(draws=2)), torn()

    def surveyed(scenes: Scenes, **options: Any) -> Any:
        return survey(model.classifier, {"main": model.purifier}, scenes, made, **options)

    whole = surveyed(Scenes(20))
    with pytest.raises(KeyboardInterrupt):
        surveyed(Scenes(20, fails_at=17), parts=tmp_path, key="k")
    torch.rand(3)
    assert surveyed(Scenes(20), parts=tmp_path, key="k").rows == whole.rows


def test_one_draw_is_the_model_itself_and_leaves_no_trace() -> None:
    model = torn()
    assert plan().known(model) is model
    assert "draws" not in plan().describe()
    known = plan(draws=5).known(model)
    assert isinstance(known, Expectation)
    assert known.samples == plan(draws=5).describe()["draws"] == 5
    with pytest.raises(InputError, match="draws: expected an integer of at least 1"):
        plan(draws=0)
