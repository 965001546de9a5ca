"""Surveys count what the attack and the purifiers really do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from jernih.assess import AssessmentPlan
from jernih.assess.figures.sweep import draw_sweep
from jernih.assess.plan import SurveyPlan
from jernih.assess.survey import survey
from jernih.assess.survey_result import Survey
from jernih.assess.tables import survey_frame, survey_rows
from jernih.attacks import FGSM, PGD
from jernih.defended import Defended
from jernih.purifiers import Identity
from jernih.types import Knowledge, Threat
from jernih.validate import InputError
from tests.assess.examples import Scenes, Smooth, defended_model, run

CLASSIFIER = defended_model(detector=False).classifier


def planned(limit: int | None = None, **changes: Any) -> SurveyPlan:
    options: dict[str, Any] = {
        "epsilons": ("2/255", "4/255"), "knowledge": ("oblivious", "adaptive"), "batch_size": 8,
        **changes,
    }  # fmt: skip
    attack = options.pop("attack", FGSM())
    labels = options.pop("labels", "true")
    return SurveyPlan("all of it", AssessmentPlan(attack, **options), limit, labels)


def surveyed(plan: SurveyPlan | None = None, **options: Any) -> Survey:
    purifiers = {"main": Smooth(), "nothing": Identity()}
    scenes = options.pop("scenes", None) or Scenes(20)
    return survey(CLASSIFIER, purifiers, scenes, plan or planned(), **options)


def test_agrees_with_the_full_assessment() -> None:
    full = run()
    found = surveyed()
    assert found.n == found.of == 20
    for threat in full.threats:
        row = found.row("main", threat)
        assert row is not None
        restored = full.condition("restored", threat)
        assert row.accuracy == restored.accuracy
        assert row.balanced_accuracy == pytest.approx(restored.balanced_accuracy.value)
        assert row.balanced == restored.balanced_accuracy
        assert row.recall == restored.per_class
        assert row.top_prediction == restored.top_prediction
    for threat in (t for t in full.threats if t.knowledge == "oblivious"):
        bare = found.row("none", threat)
        assert bare is not None
        assert bare.accuracy == full.condition("attacked", threat).accuracy
    purified = found.row("main", None)
    assert purified is not None
    assert purified.accuracy == full.condition("clean through purifier").accuracy


def test_doing_nothing_is_no_defence() -> None:
    found = surveyed()
    for threat in found.threats:
        nothing = found.row("nothing", threat)
        bare = found.row("none", Threat("linf", threat.eps, "oblivious"))
        assert nothing is not None
        assert bare is not None
        assert nothing.accuracy == bare.accuracy
        assert found.row("none", Threat("linf", threat.eps, "adaptive")) is None


def test_a_limit_draws_the_same_images_again() -> None:
    plan = planned(limit=6)
    drawn = plan.drawn(20)
    assert drawn == plan.drawn(20) == sorted(set(drawn))
    assert len(drawn) == 6
    scenes = Scenes(20)
    found = surveyed(plan, scenes=scenes)
    assert sorted(scenes.asked) == drawn
    assert (found.n, found.of) == (6, 20)
    assert {row.n for row in found.rows} == {6}


def test_many_steps_through_the_purifier() -> None:
    plan = planned(attack=PGD(steps=10), knowledge=("adaptive",))
    found = surveyed(plan)
    assert found.attack_name == "pgd-10"
    threat = Threat("linf", 4 / 255, "adaptive")
    single, many = surveyed().row("main", threat), found.row("main", threat)
    assert single is not None
    assert many is not None
    assert many.accuracy.value <= single.accuracy.value


def test_interrupted_and_resumed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        surveyed(scenes=Scenes(20, fails_at=17), parts=tmp_path, key="k")
    scenes = Scenes(20)
    assert surveyed(scenes=scenes, parts=tmp_path, key="k") == surveyed()
    assert scenes.asked == [16, 17, 18, 19]
    again = Scenes(20)
    surveyed(scenes=again, parts=tmp_path, key="another model")
    assert len(again.asked) == 20


def test_there_and_back_through_json(tmp_path: Path) -> None:
    found = surveyed()
    assert Survey.load(found.save(tmp_path / "survey.json")) == found


def test_tables() -> None:
    found = surveyed()
    headings, rows = survey_rows(found)
    assert headings[0] == "Purifier"
    assert [row[0] for row in rows] == ["the classifier alone", "main", "nothing"]
    assert all(len(row) == len(headings) == 1 + 1 + 4 for row in rows)
    alone = survey(CLASSIFIER, {"main": Smooth()}, Scenes(20), planned())
    headings, rows = survey_rows(alone)
    assert headings[0] == "Threat model"
    assert [row[0] for row in rows][:2] == ["no attack", "oblivious fgsm, L∞ ≤ 2/255"]
    assert all(len(row) == len(headings) == 1 + 2 * 3 for row in rows)
    frame = survey_frame(found)
    assert len(frame) == len(found.rows)
    assert frame["accuracy"].between(frame["accuracy_low"], frame["accuracy_high"]).all()


def test_the_sweep_is_drawn() -> None:
    figure = draw_sweep(surveyed(), "A sweep")
    assert len(figure.axes) == 2
    labels = {text.get_text() for text in figure.axes[0].get_legend().get_texts()}  # type: ignore[union-attr]
    assert {"classifier, accuracy", "defended, accuracy", "always “dark”"} <= labels


def test_refusals(tmp_path: Path) -> None:
    plan = planned()
    with pytest.raises(InputError, match="purifiers"):
        survey(CLASSIFIER, {}, Scenes(2), plan)
    with pytest.raises(InputError, match="none called 'none'"):
        survey(CLASSIFIER, {"none": Identity()}, Scenes(2), plan)
    with pytest.raises(InputError, match="at least one image"):
        survey(CLASSIFIER, {"main": Identity()}, Scenes(0), plan)
    with pytest.raises(InputError, match="key"):
        survey(CLASSIFIER, {"main": Identity()}, Scenes(2), plan, parts=tmp_path)


def test_leaves_everything_as_it_was() -> None:
    purifier = Smooth()
    before = {name: value.clone() for name, value in CLASSIFIER.state_dict().items()}
    survey(CLASSIFIER, {"main": purifier}, Scenes(8), planned())
    assert all(torch.equal(v, before[k]) for k, v in CLASSIFIER.state_dict().items())
    assert all(p.requires_grad for p in CLASSIFIER.parameters())
    assert isinstance(Defended(CLASSIFIER, purifier), Defended)


class Mislabelled(Scenes):
    """Every fifth image bears the class of another."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        image, label, place = super().__getitem__(index)
        return image, (1 - label if index % 5 == 0 else label), place


def test_attacks_lead_away_from_predictions(tmp_path: Path) -> None:
    scenes = Mislabelled(20)
    true = surveyed(scenes=scenes)
    found = surveyed(planned(labels="predicted"), scenes=scenes, parts=tmp_path, key="k")
    assert found.attack["labels"] == "predicted"
    assert "labels" not in true.attack
    assert found.attack_name == "fgsm of predicted labels"
    assert "oblivious fgsm of predicted labels" in str(survey_rows(found))
    images = torch.stack([scenes[k][0] for k in range(20)])
    labels = torch.tensor([scenes[k][1] for k in range(20)])
    for name, purifier in (("main", Smooth()), ("nothing", Identity())):
        model = Defended(CLASSIFIER, purifier).eval()
        attackers: dict[Knowledge, torch.nn.Module] = {"oblivious": CLASSIFIER, "adaptive": model}
        for knowledge, attacked in attackers.items():
            seen = attacked(images).argmax(1)
            assert not torch.equal(seen, labels)
            made = FGSM("4/255")(attacked, images, seen).images
            row = found.row(name, Threat("linf", 4 / 255, knowledge))
            assert row is not None
            right = (model(made).argmax(1) == labels).float().mean()
            assert row.accuracy.value == pytest.approx(float(right))
    again = surveyed(planned(labels="true"), scenes=scenes, parts=tmp_path, key="k")
    assert again.rows == true.rows  # not from the parts of the other
    with pytest.raises(InputError, match="labels"):
        planned(labels="guessed")
