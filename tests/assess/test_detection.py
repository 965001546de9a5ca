"""Detection surveys tell what the detectors' scores tell, and measure every image once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from jernih.assess import DetectionPlan, DetectionSurvey, survey_detection
from jernih.assess.checks import find_warnings
from jernih.assess.detection_tables import attacked_rows, detection_frame, harmless_rows
from jernih.assess.plan import SurveyPlan
from jernih.attacks import FGSM, PGD, Attack, DeepFool, GaussianNoise
from jernih.classifiers import Classifier
from jernih.detectors import Detector, Mahalanobis, PredictionChange, ReconstructionError
from jernih.harmless import HARMLESS
from jernih.purifiers import Identity, Purifier
from jernih.randomness import generator
from jernih.types import Threat
from jernih.validate import InputError
from tests.assess.examples import Scenes, Smooth, Template, assessment, defended_model, plan
from tests.conftest import tiny_classifier

CLASSIFIER = defended_model(detector=False).classifier
PURIFIER = Smooth()
FPR = 0.1


class Rough(Detector):
    """How much neighbouring pixels differ."""

    name: ClassVar[str] = "rough"
    sign = 1.0

    def score(self, images: Tensor, restored: Tensor) -> Tensor:
        return self.sign * images.diff(dim=3).abs().mean((1, 2, 3))


class Blind(Rough):
    """The opposite, which holds rough images to be the least suspicious."""

    name: ClassVar[str] = "blind"
    sign = -1.0


class Broken(Rough):
    name: ClassVar[str] = "broken"
    sign = float("nan")


def others(n: int = 60) -> Tensor:
    """Scenes that no survey here looks at."""
    scenes = Scenes(1000)
    return torch.stack([scenes[500 + k][0] for k in range(n)])


def calibrated(detector: Detector, fpr: float = FPR) -> Detector:
    detector.eval().calibrate(detector(others()).detach(), fpr)
    return detector


def detectors() -> dict[str, Detector]:
    return {
        "rough": calibrated(Rough(CLASSIFIER, PURIFIER)),
        "blind": calibrated(Blind(CLASSIFIER, PURIFIER)),
        "error, L1": calibrated(ReconstructionError(CLASSIFIER, PURIFIER, "l1")),
    }


def planned(**changes: Any) -> DetectionPlan:
    options: dict[str, Any] = {
        "title": "Which detector",
        "attacks": [(FGSM(), ("2/255", "4/255")), (PGD(steps=3), (0.01,))],
        "harmless": [
            HARMLESS.create("gaussian-noise", std=0.05),
            HARMLESS.create("brightness", change=0.1),
        ],
        "batch_size": 8,
        **changes,
    }
    return DetectionPlan(**options)


def surveyed(made: DetectionPlan | None = None, **options: Any) -> DetectionSurvey:
    scenes = options.pop("scenes", None) or Scenes(20)
    chosen = options.pop("detectors", None) or detectors()
    return survey_detection(chosen, scenes, made or planned(), **options)


def test_agrees_with_the_detectors_asked_directly() -> None:
    found = surveyed()
    scenes = [Scenes(20)[k] for k in range(20)]
    images = torch.stack([image for image, _, _ in scenes])
    labels = torch.tensor([label for _, label, _ in scenes])
    assert [row.threat for row in found.attacked[:2]] == [
        Threat("linf", 2 / 255), Threat("linf", 4 / 255),
    ]  # fmt: skip
    for row in found.attacked[:2]:
        attacked = FGSM().perturb(CLASSIFIER, images, labels, [row.threat.eps])[0]
        right = CLASSIFIER(attacked).argmax(1) == labels
        assert row.accuracy.successes == int(right.sum())
        for name, detector in detectors().items():
            clean, scores = detector(images).detach().numpy(), detector(attacked).detach().numpy()
            got = row.found[name]
            truth = np.repeat([0, 1], 20)
            area = roc_auc_score(truth, np.concatenate([clean, scores]))
            assert got.auroc.value == pytest.approx(area)
            assert got.auroc.low is not None
            assert got.auroc.high is not None
            assert got.auroc.low <= area <= got.auroc.high
            assert detector.threshold is not None
            assert got.flagged.successes == int((scores > detector.threshold).sum())
            assert [at.fpr for at in got.at] == [0.05, 0.01]
            # Of 20 images a twentieth is one; a hundredth is none.
            for at, place in zip(got.at, (-2, -1), strict=True):
                assert at.tpr.successes == int((scores > np.sort(clean)[place]).sum())
            assert row.n == got.flagged.n == 20
    darker = found.harmless[2]
    for name, detector in detectors().items():
        scores = detector((images * 1.1).clamp(0, 1)).detach().numpy()
        assert detector.threshold is not None
        flagged = darker.alarms[name].flagged
        assert flagged.successes == int((scores > detector.threshold).sum())
        assert flagged.method == "wilson"
        assert darker.alarms[name].ratio == pytest.approx(flagged.value / FPR)


class Wrong(Scenes):
    """Every fourth scene is called what it is not: an attack finds its work done and stops."""

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        image, label, place = super().__getitem__(index)
        return image, 1 - label if index % 4 == 0 else label, place


def test_only_images_that_an_attack_had_to_turn_are_to_be_found() -> None:
    attacks = [(PGD(steps=3), ("4/255",)), (FGSM(), ("4/255",))]
    made = planned(attacks=attacks, harmless=[], batch_size=20)
    found = surveyed(made, scenes=Wrong(20))
    by_steps, at_once = found.attacked
    assert (by_steps.n, by_steps.accuracy.n, by_steps.accuracy.successes) == (15, 15, 0)
    assert (at_once.n, at_once.accuracy.n) == (15, 15)
    scenes = [Wrong(20)[k] for k in range(20)]
    images = torch.stack([image for image, _, _ in scenes])
    labels = torch.tensor([label for _, label, _ in scenes])
    right = CLASSIFIER(images).argmax(1) == labels
    source = generator(0, "detection", 0)
    attacked = PGD(steps=3).perturb(CLASSIFIER, images, labels, [4 / 255], generator=source)[0]
    for name, detector in detectors().items():
        scores = [detector(some).detach().numpy() for some in (images, attacked[right])]
        area = roc_auc_score(np.repeat([0, 1], [20, 15]), np.concatenate(scores))
        assert by_steps.found[name].auroc.value == pytest.approx(area)
        assert by_steps.found[name].flagged.n == 15


def test_a_classifier_that_is_always_wrong_leaves_nothing_to_find() -> None:
    everything = surveyed(planned(attacks=[(PGD(steps=1), (0.01,))]), scenes=AllWrong(8))
    assert everything.attacked == ()


class AllWrong(Scenes):
    """Nothing is called what it is."""

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        image, label, place = super().__getitem__(index)
        return image, 1 - label, place


def test_a_detector_of_noise_finds_noise_and_its_opposite_none() -> None:
    noise = [(GaussianNoise(std=1), (0.2,))]
    row = surveyed(planned(attacks=noise)).attacked[0]
    rough, blind = row.found["rough"], row.found["blind"]
    assert rough.auroc.value == 1
    assert rough.flagged.value == 1
    assert [at.tpr.value for at in rough.at] == [1, 1]
    assert blind.auroc.value == 0
    assert blind.flagged.value == 0
    assert row.accuracy.value >= 0.5  # noise is no attack


def test_harmless_rows_begin_with_the_images_as_they_are() -> None:
    found = surveyed()
    assert [row.name for row in found.harmless] == [
        "unchanged", "gaussian-noise, std 0.05", "brightness, change 0.1",
    ]  # fmt: skip
    assert found.harmless[0].change is None
    assert found.harmless[0].accuracy == assessment().condition("clean").accuracy
    assert all(set(row.alarms) == set(detectors()) for row in found.harmless)
    assert found.harmless[1].alarms["rough"].flagged.value == 1
    assert found.harmless[1].alarms["rough"].ratio == pytest.approx(1 / FPR)
    assert found.harmless[1].alarms["blind"].ratio == 0
    alone = surveyed(planned(attacks=[], harmless=[]))
    assert alone.attacked == ()
    assert alone.harmless == found.harmless[:1]


def test_images_are_attacked_and_restored_once_for_all_detectors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attacked: list[int] = []
    restored: list[int] = []
    perturb = Attack.perturb

    def count(self: Attack, model: Any, images: Tensor, *rest: Any, **options: Any) -> list[Tensor]:
        attacked.append(len(images))
        return perturb(self, model, images, *rest, **options)

    class Counted(Smooth):
        def restore(self, images: Tensor) -> Tensor:
            restored.append(len(images))
            return super().restore(images)

    purifier = Counted()
    several = {
        "one": calibrated(ReconstructionError(CLASSIFIER, purifier, "l1")),
        "two": calibrated(ReconstructionError(CLASSIFIER, purifier, "l2")),
    }
    restored.clear()
    monkeypatch.setattr(Attack, "perturb", count)
    surveyed(detectors=several)
    assert attacked == [8, 8, 8, 8, 4, 4]  # two attacks, whatever their bounds
    assert sum(restored) == 20 * (1 + 3 + 2)


def test_what_stands_beside_changes_nothing() -> None:
    found = surveyed(planned(attacks=[(PGD(steps=3), (0.01,))]))
    assert found.attacked[0] == surveyed().attacked[2]
    only = {"rough": detectors()["rough"]}
    assert surveyed(detectors=only).attacked[0].found == {
        "rough": surveyed().attacked[0].found["rough"]
    }
    noisy = [HARMLESS.create("jpeg"), *planned().harmless]
    assert surveyed(planned(harmless=noisy)).harmless[2:] == surveyed().harmless[1:]
    faint = [(GaussianNoise(), (0.002,))]
    areas = {
        surveyed(planned(seed=seed, attacks=faint)).attacked[0].found["rough"].auroc.value
        for seed in (1, 2, 3)
    }
    assert len(areas) > 1


def test_a_limit_draws_the_images_that_surveys_draw() -> None:
    scenes = Scenes(20)
    found = surveyed(planned(limit=6), scenes=scenes)
    assert (found.n, found.of) == (6, 20)
    assert sorted(scenes.asked) == SurveyPlan("x", plan(), 6).drawn(20)
    assert {row.n for row in found.attacked} == {row.n for row in found.harmless} == {6}


def test_interrupted_and_resumed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        surveyed(scenes=Scenes(20, fails_at=17), parts=tmp_path, key="k")
    scenes = Scenes(20)
    done: list[tuple[int, int]] = []
    told = surveyed(
        scenes=scenes, parts=tmp_path, key="k", progress=lambda *step: done.append(step)
    )
    assert told == surveyed()
    assert scenes.asked == [16, 17, 18, 19]
    assert done == [(8, 20), (16, 20), (20, 20)]


def test_nothing_is_measured_again_without_need(tmp_path: Path) -> None:
    def asked(made: DetectionPlan, key: str = "k", **options: Any) -> int:
        scenes = Scenes(20)
        surveyed(made, scenes=scenes, parts=tmp_path, key=key, **options)
        return len(scenes.asked)

    assert asked(planned()) == 20
    assert asked(planned()) == 0
    assert asked(planned(title="Another title", level=0.9)) == 0
    renamed = dict(zip("abc", detectors().values(), strict=True))
    assert asked(planned(), detectors=renamed) == 0
    assert asked(planned(seed=1)) == 20
    assert asked(planned(seed=1, harmless=[])) == 20
    assert asked(planned(seed=1, harmless=[]), key="other models") == 20


def test_there_and_back_through_json(tmp_path: Path) -> None:
    found = surveyed()
    assert DetectionSurvey.load(found.save(tmp_path / "detection.json")) == found
    assert found.detectors["error, L1"].unit == {"name": "reconstruction-error", "norm": "l1"}
    assert found.detectors["rough"].calibration_n == 60


def test_tables() -> None:
    found = surveyed()
    headings, rows = attacked_rows(found)
    assert headings == ("Threat model", "Classifier right", "rough", "blind", "error, L1")
    assert [row[0] for row in rows] == [
        ("oblivious fgsm, L∞ ≤ 2/255",), ("oblivious fgsm, L∞ ≤ 4/255",),
        ("oblivious pgd-3, L∞ ≤ 0.01",),
    ]  # fmt: skip
    assert [line.partition(":")[0] for line in rows[0][2][1:]] == ["at 5%", "at 1%", "flagged"]
    headings, rows = harmless_rows(found)
    assert headings[2:] == ("rough", "blind", "error, L1")
    assert len(rows) == 3
    assert rows[1][2][0].startswith("100.0 % [")
    assert rows[1][2][1] == "10.0 × nominal"
    frame = detection_frame(found)
    assert len(frame) == 3 * (3 + 3)
    assert frame["flagged"].between(frame["flagged_low"], frame["flagged_high"]).all()
    attacked = frame[frame["images"] == "attacked"]
    assert attacked["auroc"].notna().all()
    assert attacked["tpr_at_0.01"].notna().all()
    assert frame[frame["images"] != "attacked"]["ratio_to_nominal"].notna().all()


def test_false_alarms_beyond_twice_the_nominal_share_are_warned_of() -> None:
    found = surveyed()
    warnings = [
        finding
        for finding in find_warnings(assessment(), (), [found])
        if finding.check == "alarms on harmless changes"
    ]
    assert {finding.severity for finding in warnings} == {"caution"}
    told = {finding.text.partition("the detector ")[2].partition(",")[0] for finding in warnings}
    assert "rough" in told
    assert "blind" not in told
    text = next(finding.text for finding in warnings if "detector rough" in finding.text)
    assert "gaussian-noise, std 0.05: 100.0 %" in text
    assert "unchanged" not in text
    assert find_warnings(assessment(), (), []) == assessment().warnings


def test_few_images_warn_of_nothing() -> None:
    # Of four images one may well be flagged by chance: the interval says so.
    found = surveyed(planned(harmless=[], attacks=[]), scenes=Scenes(4))
    assert not [
        finding
        for finding in find_warnings(assessment(), (), [found])
        if finding.check == "alarms on harmless changes"
    ]


def test_classifiers_with_one_logit() -> None:
    classifier, purifier = tiny_classifier(outputs=1), Smooth()
    learnt = Mahalanobis(classifier, purifier)
    labels = torch.arange(60) % 2
    learnt.fit(lambda: [(others(), labels)], lambda: [(others(), labels)])
    chosen = {
        "mahalanobis": calibrated(learnt),
        "change": calibrated(PredictionChange(classifier, purifier)),
    }
    made = planned(attacks=[(FGSM(), (0.05,)), (DeepFool(), (5.0,))])
    found = surveyed(made, detectors=chosen)
    assert [row.threat.norm for row in found.attacked] == ["linf", "l2"]
    assert {name for row in found.attacked for name in row.found} == set(chosen)


def test_leaves_detectors_and_classifier_as_they_were() -> None:
    chosen = detectors()
    before = {name: value.clone() for name, value in CLASSIFIER.state_dict().items()}
    surveyed(detectors=chosen)
    assert all(torch.equal(v, before[k]) for k, v in CLASSIFIER.state_dict().items())
    assert all(p.requires_grad for p in CLASSIFIER.parameters())
    assert all(detector.classifier is CLASSIFIER for detector in chosen.values())
    assert {name: d.calibration for name, d in chosen.items()} == {
        name: d.calibration for name, d in detectors().items()
    }


def uncalibrated() -> dict[str, Detector]:
    return {"new": Rough(CLASSIFIER, PURIFIER).eval()}


def with_other(classifier: Classifier, purifier: Purifier) -> dict[str, Detector]:
    return {**detectors(), "odd": calibrated(Rough(classifier, purifier))}


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="detectors: expected at least one; got none"):
        survey_detection({}, Scenes(2), planned())
    with pytest.raises(InputError, match="calibrated thresholds; got none in 'new'"):
        surveyed(detectors=uncalibrated())
    other = Classifier(Template(), ("dark", "bright"))
    for models in ((other, PURIFIER), (CLASSIFIER, Identity())):
        with pytest.raises(InputError, match="one classifier and purifier; got others in 'odd'"):
            surveyed(detectors=with_other(*models))
    broken = Rough(CLASSIFIER, PURIFIER)
    calibration = calibrated(broken).calibration
    nan = Broken(CLASSIFIER, PURIFIER).eval()
    nan.calibration = calibration
    with pytest.raises(InputError, match="detector 'broken': expected finite scores"):
        surveyed(detectors={"nan": nan})
    with pytest.raises(InputError, match="dataset: expected at least one image"):
        survey_detection(detectors(), Scenes(0), planned())
    with pytest.raises(InputError, match="key: expected a fingerprint"):
        surveyed(parts=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected a whole number from 1 on; got 0"),
        ({"limit": 0}, "limit: expected a whole number"),
        ({"seed": -1}, "seed"),
        ({"level": 2}, r"level: expected a number in \[0.5, 0.999\]; got 2"),
        ({"attacks": [(FGSM(), ())]}, "epsilons: expected a list of one or more bounds"),
        ({"attacks": [(FGSM(targeted=True), (0.1,))]}, "an untargeted attack"),
        ({"harmless": ["blur"]}, "harmless: expected harmless changes; got a str"),
    ],
)
def test_plans_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        planned(**changes)
