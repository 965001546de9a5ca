"""The run as a whole: every stage, what is skipped, and what an interruption leaves."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import jernih.pipeline.classifier
import jernih.pipeline.data
import jernih.pipeline.model
import jernih.pipeline.semma
from jernih.assess import Assessment
from jernih.assess.detection_result import DetectionSurvey
from jernih.assess.survey_result import Survey
from jernih.attacks import Attack
from jernih.cards import publish
from jernih.harmless import HARMLESS
from jernih.pipeline import Pipeline, Reporter
from jernih.purifiers import PURIFIERS, Purifier, restore_purifier, save_purifier
from jernih.randomness import generator, seeded
from jernih.storage import read_json, sha256_file
from jernih.types import Threat
from jernih.validate import InputError
from tests.helpers import small_run

STAGES = [
    "sample",
    "explore",
    "modify",
    "model/classifier",
    "model/attack",
    "model/purifier",
    "model/detector",
    "assess",
]


class Notes(Reporter):
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def stage(self, name: str, state: str) -> None:
        self.seen.append((name, state))

    def done(self) -> list[str]:
        return [name for name, state in self.seen if state == "complete"]

    def skipped(self) -> list[str]:
        return [name for name, state in self.seen if state == "complete before"]


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): sha256_file(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and not {"tensorboard", "measured"} & set(file.parts)
        and file.name != ".lock"
    }


def test_a_run_and_its_second_run(tmp_path: Path) -> None:
    config = small_run(tmp_path)
    notes = Notes()
    state = torch.get_rng_state()
    assessment = Pipeline(config, reporter=notes).run()
    assert torch.equal(state, torch.get_rng_state())
    assert notes.done() == STAGES
    folder = tmp_path / "run"
    for file in ("config.yaml", "sample/manifest.csv", "explore/explore.json",
                 "explore/defects.csv", "modify/augmented.png", "model/attack/attack.json",
                 "model/classifier/classifier.safetensors", "model/classifier/history.csv",
                 "model/purifier/purifier.safetensors", "model/detector/detector.json",
                 "assess/assessment.json", "assess/report.html"):  # fmt: skip
        assert (folder / file).stat().st_size > 0, file
    assert assessment.n == 16
    assert assessment.condition("clean").accuracy.value == 1.0
    for knowledge in ("oblivious", "adaptive"):
        condition = assessment.condition("restored", Threat("linf", 0.2, knowledge))
        assert condition.accuracy.n == 16
        assert condition.accuracy.low <= condition.accuracy.value <= condition.accuracy.high
    report = (folder / "assess/report.html").read_text(encoding="utf-8")
    assert "oblivious" in report
    assert "adaptive" in report
    before = hashes(folder)
    again = Notes()
    assert Pipeline(config, reporter=again).run() == assessment
    assert again.skipped() == STAGES
    assert hashes(folder) == before
    assert Assessment.load(folder / "assess/assessment.json") == assessment


def test_a_change_redoes_what_depends_on_it(tmp_path: Path) -> None:
    Pipeline(small_run(tmp_path)).run()
    notes = Notes()
    Pipeline(small_run(tmp_path, **{"model.fpr": 0.3}), reporter=notes).run()
    assert notes.done() == ["model/detector", "assess"]
    next((tmp_path / "images" / "a").iterdir()).unlink()
    notes = Notes()
    Pipeline(small_run_without_writing(tmp_path), reporter=notes).sample()
    assert notes.done() == ["sample"]


def small_run_without_writing(root: Path) -> Any:
    """The config of :func:`small_run`, with the images as they are."""
    from jernih.config import load_config

    return load_config(root / "run/config.yaml")


@pytest.mark.parametrize(
    ("room", "broken"),
    [
        (jernih.pipeline.data, "explore"),
        (jernih.pipeline.classifier, "fit_classifier"),
        (jernih.pipeline.model, "fit_purifier"),
        (jernih.pipeline.semma, "assess"),
    ],
    ids=["explore", "fit_classifier", "fit_purifier", "assess"],
)
def test_an_interrupted_run_ends_like_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: Any, broken: str
) -> None:
    config = small_run(tmp_path)
    Pipeline(config, out=tmp_path / "whole").run()
    original = getattr(room, broken)

    def interrupt(*args: Any, **kwargs: Any) -> Any:
        original(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(room, broken, interrupt)
    with pytest.raises(KeyboardInterrupt):
        Pipeline(config, out=tmp_path / "cut").run()
    monkeypatch.undo()
    Pipeline(config, out=tmp_path / "cut").run()
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")


def test_same_seed_same_figures_other_seed_other_split(tmp_path: Path) -> None:
    config = small_run(tmp_path)
    pipeline = Pipeline(config, out=tmp_path / "1")
    first = pipeline.run()
    assert Pipeline(config, out=tmp_path / "2").run() == first
    other = Pipeline(small_run(tmp_path, seed=1), out=tmp_path / "3")
    splits = [[record.split for record in run.sample().records] for run in (pipeline, other)]
    assert splits[0] != splits[1]


def test_identity_purifier_and_no_detector(tmp_path: Path) -> None:
    changes = {
        "model.purifier": {"name": "identity"},
        "model.purifier_training": None,
        "model.detector": None,
        "assess.knowledge": ["oblivious"],
    }
    assessment = Pipeline(small_run(tmp_path, **changes)).run()
    for threat in assessment.threats:
        attacked = assessment.condition("attacked", threat)
        restored = assessment.condition("restored", threat)
        assert attacked.accuracy == restored.accuracy
    assert assessment.detection is None


def test_weights_instead_of_training(tmp_path: Path) -> None:
    trained = Pipeline(small_run(tmp_path))
    trained.model()
    model = tmp_path / "run/model"
    changes = {
        "model.classifier.weights": str(model / "classifier/classifier.safetensors"),
        "model.classifier_training": None,
        "model.purifier_weights": str(model / "purifier/purifier.safetensors"),
        "model.purifier_training": None,
    }
    loaded = Pipeline(small_run(tmp_path, **changes), out=tmp_path / "loaded")
    images = torch.stack([trained.modify()["test"][i][0] for i in range(4)])
    torch.testing.assert_close(loaded.model()(images), trained.model()(images))


def test_what_cannot_work_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="purifier_training: expected training settings"):
        Pipeline(small_run(tmp_path, **{"model.purifier_training": None})).model()
    with pytest.raises(InputError, match="at least 99 clean images"):
        Pipeline(small_run(tmp_path, **{"model.fpr": 0.01})).model()
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="a CUDA device"):
            Pipeline(small_run(tmp_path, device="cuda"))
    source = {"name": "folder", "path": str(tmp_path / "none")}
    nowhere = Pipeline(small_run(tmp_path, **{"sample.source": source}))
    with pytest.raises(InputError, match="existing folder"):
        nowhere.sample()


STUDY: dict[str, Any] = {
    "model.attack_once": True,
    "model.adversarial_training": {"attack": {"name": "fgsm", "eps": 0.02}, "share": 0.25},
    "model.others": {
        "Median 3×3": {"purifier": {"name": "median"}},
        "components": {"purifier": {"name": "pca", "patch": 4, "components": 8}},
        "set B": {
            "purifier": {"name": "conv-autoencoder", "widths": [4]},
            "training": {"epochs": 1, "batch_size": 8, "lr": 0.02},
        },
    },
    "assess.surveys": [
        {"title": "Sweep", "epsilons": [0.01, 0.05, 0.1, 0.2]},
        {
            "title": "Others",
            "attack": {"name": "pgd", "steps": 3},
            "epsilons": [0.2],
            "knowledge": ["adaptive"],
            "others": True,
            "limit": 6,
        },
    ],
    "assess.wanted_recall": {"positive": "b", "recall": 0.9},
    "published": {
        "study": "A study of stripes.",
        "nearest": 0.5,
        "notes": ["Stripes are not clinical."],
        "figures": [
            {"figure": "accuracy clean", "value": 0.9, "measure": "accuracy"},
            {
                "figure": "accuracy restored",
                "value": 0.8,
                "measure": "accuracy",
                "which": "restored",
                "eps": 0.2,
            },
        ],
    },
}


def test_a_study_stands_beside_its_published_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes()
    pipeline = Pipeline(small_run(tmp_path, **STUDY), reporter=notes)
    before = pipeline.run()
    folder = tmp_path / "run"
    assert "model/others/median-3-3" in notes.done()
    assert set(pipeline.purifiers()) == {"main", "Median 3×3", "components", "set B"}
    report = (folder / "assess/report.html").read_text(encoding="utf-8")
    for words in (
        "A study of stripes.",
        "Stripes are not clinical.",
        "(adaptive pgd-3, n = 6)",
        "comes nearest to its attacked accuracy of 50.0 %",
        "Decision threshold for b: the classifier",
        "Decision threshold for b: the defended model",
        "Layers of the purifier",
        "drawn at random from 16",
    ):
        assert words in report.replace("\N{NO-BREAK SPACE}", " "), words
    survey = Survey.load(folder / "assess/surveys/survey-2.json")
    assert list(survey.purifiers) == ["main", "Median 3×3", "components", "set B"]
    assert (folder / "assess/figures/survey-1.png").is_file()
    assert (folder / "assess/figures/training-purifier set B.png").is_file()
    assert (folder / "assess/figures/training-purifiers.png").is_file()

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("nothing is attacked any more")

    # Another note makes another report, but nothing is measured again for it.
    monkeypatch.setattr(Attack, "sweep", refuse)
    told = {**STUDY, "published": {**STUDY["published"], "notes": ["Another word."]}}
    notes = Notes()
    assert Pipeline(small_run(tmp_path, **told), reporter=notes).run() == before
    assert notes.done() == ["assess"]
    report = (tmp_path / "run/assess/report.html").read_text(encoding="utf-8")
    assert "Another word." in report
    again = Pipeline(small_run(tmp_path, **told))
    surveys = [Survey.load(folder / f"assess/surveys/survey-{k}.json") for k in (1, 2)]
    for finding in again.findings():
        assert finding.text in html.unescape(report).replace("\N{NO-BREAK SPACE}", " ")
    given: list[Any] = []
    monkeypatch.setattr(jernih.pipeline.semma, "find_warnings", lambda *some: given.extend(some))
    again.findings()
    assert given == [before, surveys, []]


def test_takes_weights_that_come_with_the_package(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "model.purifier": {"name": "jernih-s"},
        "model.purifier_weights": "jernih-s-imagenet",
        "model.detector": None,
    }
    purifier = Pipeline(small_run(tmp_path, **changes)).model().purifier
    images = torch.rand(2, 3, 32, 32, generator=generator("shipped"))
    assert torch.equal(purifier(images), restore_purifier("jernih-s-imagenet")(images))
    changes["model.purifier"] = {"name": "jernih-s", "strength": 0.5}
    purifier = Pipeline(small_run(tmp_path / "weaker", **changes)).model().purifier
    weaker = restore_purifier("jernih-s-imagenet", strength=0.5)(images)
    assert torch.equal(purifier(images), weaker)
    changes["model.purifier_weights"] = "jernih-s-imagnet"
    with pytest.raises(InputError, match="jernih-s-imagnet"):
        Pipeline(small_run(tmp_path, **changes)).model()


def test_a_random_purifier_gives_the_same_figures_again(tmp_path: Path) -> None:
    members = [{"name": "jpeg", "quality": 5}, {"name": "bit-depth", "bits": 1}, "median"]
    purifier = {"name": "ensemble", "members": members, "how": "random"}
    other = {"mean": {"purifier": {**purifier, "how": "average"}}}
    survey = {"title": "both", "epsilons": [0.1], "knowledge": ["adaptive"], "others": True}
    changes = {
        "model.purifier": purifier, "model.others": other, "assess.surveys": [survey],
    }  # fmt: skip
    config = small_run(tmp_path, **changes)
    state = torch.get_rng_state()
    first = Pipeline(config, out=tmp_path / "1").run()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert Pipeline(config, out=tmp_path / "2").run() == first
    assert hashes(tmp_path / "1") == hashes(tmp_path / "2")
    assert any(warning.check == "random model" for warning in first.warnings)


def test_another_file_of_a_member_is_noticed(tmp_path: Path) -> None:
    member = tmp_path / "member.safetensors"
    changes = {
        "model.purifier": {"name": "ensemble", "members": ["median", {"name": "unet"}]},
        "model.purifier_training": None,
        "model.detector": None,
    }
    changes["model.purifier"]["members"][1]["weights"] = str(member)  # type: ignore[index]
    found: list[Purifier] = []
    for _ in range(2):
        with seeded("member", len(found)):
            unet = PURIFIERS.create("unet", widths=(4,), blocks=(1,))
            torch.nn.init.normal_(next(unet.parameters()), std=0.1)
            torch.nn.init.normal_(list(unet.parameters())[-1], std=0.1)
        save_purifier(unet, member)
        found.append(Pipeline(small_run(tmp_path, **changes)).model().purifier)
    images = torch.rand(2, 3, 32, 32, generator=generator("members"))
    assert not torch.equal(found[0](images), found[1](images))


def test_weights_for_others_and_their_card(tmp_path: Path) -> None:
    Pipeline(small_run(tmp_path)).run()
    card = read_json(publish(tmp_path / "run", "classifier", "edges", folder=tmp_path / "weights"))
    weights = tmp_path / "weights/edges.safetensors"
    assert card["sha256"] == sha256_file(weights)
    assert card["dtype"] == "float16"
    assert card["data"]["images"]["test"] == {"a": 8, "b": 8}
    assert [row["epoch"] for row in card["history"]] == [0, 1, 2]
    told = {figure["threat"]: figure for figure in card["figures"]}
    assert told["no attack"]["n"] == 16
    assert set(told["oblivious fgsm, L∞ ≤ 0.2"]) >= {"accuracy", "low", "high", "n"}
    changes = {
        "model.classifier": {"name": "tests.helpers:edge_network", "weights": str(weights)},
        "model.classifier_training": None,
    }
    again = Pipeline(small_run(tmp_path, **changes), out=tmp_path / "again")
    again.run()
    report = (tmp_path / "again/assess/report.html").read_text(encoding="utf-8")
    assert "Curves of the training: training-classifier" in report
    with pytest.raises(InputError, match="a folder with a trained purifier"):
        publish(tmp_path, "purifier", "x")


def test_only_flagged_images_are_restored_in_a_run(tmp_path: Path) -> None:
    always = Pipeline(small_run(tmp_path)).run()
    notes = Notes()
    pipeline = Pipeline(small_run(tmp_path, **{"model.policy": "restore-flagged"}), reporter=notes)
    found = pipeline.run()
    assert notes.done() == ["assess"]  # nothing is trained again for it
    seen, before = found.observations, always.observations
    assert seen is None
    assert before is None
    assert found.models["policy"] == {"name": "restore-flagged"}
    assert "policy" not in always.models
    images = pd.read_csv(tmp_path / "run/assess/tables/per_image.csv")
    oblivious = images[images["knowledge"] == "oblivious"]
    left = oblivious[~oblivious["flagged"]]
    assert 0 < len(left) < len(oblivious)
    assert (left["restored_prediction"] == left["attacked_prediction"]).all()
    report = (tmp_path / "run/assess/report.html").read_text(encoding="utf-8")
    assert "are classified as they came" in report


def test_a_policy_by_flags_wants_a_detector(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs a detector"):
        small_run(tmp_path, **{"model.policy": "reject-flagged", "model.detector": None})


def test_a_detector_that_learns_is_fitted_once(tmp_path: Path) -> None:
    changes = {"model.detector": {"name": "combination"}, "model.epsilons": [0.1, 0.2]}
    pipeline = Pipeline(small_run(tmp_path, **changes))
    first = pipeline.model()
    assert first.detector is not None
    assert (tmp_path / "run/model/detector/learnt.safetensors").is_file()
    notes = Notes()
    again = Pipeline(small_run(tmp_path, **changes), reporter=notes).model()
    assert again.detector is not None
    assert notes.done() == []
    images = torch.rand(3, 3, 32, 32, generator=generator("fitted once"))
    assert torch.equal(again.detector(images), first.detector(images))
    assert again.detector.threshold == first.detector.threshold
    changed = Pipeline(small_run(tmp_path, **{**changes, "model.epsilons": [0.3]})).model()
    assert changed.detector is not None
    assert not torch.equal(changed.detector(images), first.detector(images))


def test_detectors_let_harmless_changes_pass(tmp_path: Path) -> None:
    """A detector that is told of noise flags less of it, and is made anew for that."""
    noise = {"name": "gaussian-noise", "std": 0.1}
    found = {}
    for kind in ("reconstruction-error", "combination"):
        for told in ([], [noise, {"name": "brightness"}]):
            changes = {"model.detector": {"name": kind}, "model.harmless": told}
            pipeline = Pipeline(small_run(tmp_path, **changes))
            detector = pipeline.model().detector
            assert detector is not None
            test = pipeline.modify()["test"]
            images = torch.stack([test[k][0] for k in range(len(test))])
            noisy = HARMLESS.create(**noise)(images, generator=generator("told"))  # type: ignore[arg-type]
            found[kind, bool(told)] = int(detector.flag(detector(noisy)).sum())
            card = read_json(tmp_path / "run/model/detector/detector.json")
            assert ("harmless" in card) == bool(told)
    assert card["harmless"] == [noise, {"name": "brightness", "change": 0.1}]
    assert [len(scores) for scores in card["harmless_scores"]] == [len(card["clean_scores"])] * 2
    assert found["reconstruction-error", False] >= 8
    assert found["reconstruction-error", True] < 4
    assert found["combination", True] < 4
    with pytest.raises(InputError, match="nearest: 'brightness'"):
        small_run(tmp_path, **{"model.harmless": [{"name": "brightnes"}]})


DETECTION: dict[str, Any] = {
    "title": "Detectors side by side",
    "detectors": {
        "error, L2": {"name": "reconstruction-error"},
        "change": {"name": "prediction-change"},
        "together": {"name": "combination"},
    },
    "attacks": [
        {"attack": {"name": "fgsm"}, "epsilons": [0.1, 0.2]},
        {"attack": {"name": "deepfool"}, "epsilons": [5]},
    ],
    "harmless": [{"name": "gaussian-noise", "std": 0.05}, {"name": "jpeg", "quality": 50}],
    "limit": 12,
}


def test_a_detection_survey_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"model.detector": {"name": "prediction-change"}, "assess.detection": [DETECTION]}
    first = Pipeline(small_run(tmp_path, **changes))
    before = first.run()
    folder = tmp_path / "run"
    found = DetectionSurvey.load(folder / "assess/surveys/detection-1.json")
    assert (found.n, found.of, list(found.detectors)) == (
        12,
        16,
        ["error, L2", "change", "together"],
    )
    assert [row.attack_name for row in found.attacked] == ["fgsm", "fgsm", "deepfool-50"]
    assert len(found.harmless) == 3
    # The model's own detector is not made twice.
    made = {path.name.rpartition("-")[0] for path in (folder / "model/detectors").iterdir()}
    assert made == {"reconstruction-error", "combination"}
    own = first.model().detector
    assert own is not None
    assert found.detectors["change"].threshold == own.threshold
    report = html.unescape((folder / "assess/report.html").read_text(encoding="utf-8"))
    report = report.replace("\N{NO-BREAK SPACE}", " ")
    for words in (
        "Detectors side by side: harmless changes",
        "gaussian-noise, std 0.05",
        "n = 12 drawn at random from 16, 95 % intervals",
        "oblivious deepfool",
        "together (combination, detectors reconstruction-error + ",
    ):
        assert words in report, words
    frame = pd.read_csv(folder / "assess/surveys/detection-1.csv")
    assert len(frame) == 3 * (3 + 3)
    for finding in first.findings():
        assert finding.text in report
    card = read_json(publish(folder, "purifier", "mine", folder=tmp_path / "weights"))
    rows = card["detection"]
    assert len(rows) == 3 * (3 + 3)
    assert {row["threat"] for row in rows if row["images"] == "attacked"} == {
        row.name for row in found.attacked
    }
    assert all(row["flagged_low"] <= row["flagged"] <= row["flagged_high"] for row in rows)

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("nothing is attacked any more")

    # Another title makes another report, but nothing is measured again for it.
    monkeypatch.setattr(Attack, "perturb", refuse)
    named = {**changes, "assess.detection": [{**DETECTION, "title": "Another title"}]}
    notes = Notes()
    assert Pipeline(small_run(tmp_path, **named), reporter=notes).run() == before
    assert notes.done() == ["assess"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detectors": {}}, "detectors"),
        ({"detectors": {"a": {"name": "reconstruction-eror"}}}, "reconstruction-error"),
        ({"detectors": {"a": {"name": "combination", "normm": "l1"}}}, "normm"),
        ({"attacks": [{"attack": {"name": "fgsm"}, "epsilons": []}]}, "epsilons"),
        (
            {"harmless": [{"name": "jpeg", "quality": 500}]},
            r"quality: expected a number in \[1, 100\]",
        ),
    ],
)
def test_detection_surveys_that_cannot_be(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises((InputError, ValueError), match=message):
        small_run(tmp_path, **{"assess.detection": [{**DETECTION, **changes}]})
