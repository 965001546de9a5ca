from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor, nn

from jernih.assess import AssessmentPlan, assess, write_report
from jernih.assess.observations import FIELDS, load_part
from jernih.assess.result import Assessment
from jernih.attacks import Attack
from jernih.purifiers import Identity
from jernih.types import Norm, Threat
from jernih.validate import InputError
from tests.assess.examples import Scenes, assessment, defended_model, plan, run


class Noise(Attack):
    """Uniform noise, to see where the randomness comes from."""

    name: ClassVar[str] = "noise"
    norm: Norm = "linf"
    reference: ClassVar[str] = ""

    def run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        eps: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        return images + eps * (2 * torch.rand(images.shape, generator=generator) - 1)


def same_observations(first: Assessment, second: Assessment) -> bool:
    if first.observations is None or second.observations is None:
        return False
    return all(
        np.array_equal(first.observations[f], second.observations[f], equal_nan=f != "example_key")
        for f in FIELDS
    )


def test_the_purifier_mends_what_an_unaware_attacker_breaks_and_no_more() -> None:
    found = assessment()
    assert found.condition("clean").accuracy.value == 1
    unaware, aware = (Threat("linf", 4 / 255, k) for k in ("oblivious", "adaptive"))
    assert found.condition("attacked", unaware).accuracy.value == 0
    assert found.condition("restored", unaware).accuracy.value == 1
    # The mean brightness is all that is left to an attacker who knows of the smoothing.
    assert found.condition("restored", aware).accuracy.value < 1
    success = found.condition("attacked", unaware).success
    assert success is not None
    assert (success.successes, success.n) == (20, 20)


def test_with_an_identity_purifier_restored_equals_attacked() -> None:
    found = run(defended_model(Identity(), detector=False))
    for threat in found.threats:
        attacked, restored = (
            found.condition("attacked", threat),
            found.condition("restored", threat),
        )
        assert attacked.accuracy == restored.accuracy
        assert attacked.confusion == restored.confusion
        assert attacked.quality == restored.quality
        test = next(t for t in found.tests if t.threat == threat and t.first == "attacked")
        assert (test.difference.value, test.mcnemar_p, test.t_p) == (0, 1, 1)
    clean = found.condition("clean through purifier")
    assert clean.quality is not None
    assert clean.quality.psnr.mean is None
    assert clean.quality.psnr.infinite == 20
    assert found.detection is None


def test_counts_say_what_the_images_say() -> None:
    found = assessment()
    seen = found.observations
    assert seen is not None
    for number, threat in enumerate(found.threats):
        at = divmod(number, 2)
        for which in ("attacked", "restored"):
            condition = found.condition(which, threat)
            hits = int((seen[f"{which}_pred"][at] == seen["label"]).sum())
            assert condition.accuracy.successes == hits
            assert sum(cell.count for cell in condition.confusion) == condition.n == 20


def test_detection_counts_what_the_threshold_flags() -> None:
    model = defended_model()
    found = run(model)
    seen, detection = found.observations, found.detection
    assert seen is not None
    assert detection is not None
    assert model.detector is not None
    assert detection.threshold == model.detector.threshold
    assert detection.fpr is not None
    assert detection.fpr.successes == int((seen["clean_score"] > detection.threshold).sum())
    assert (detection.nominal_fpr, detection.calibration_n) == (0.1, 24)
    for number, result in enumerate(detection.results):
        at = divmod(number, 2)
        assert result.tpr is not None
        assert result.tpr.successes == int((seen["attacked_score"][at] > detection.threshold).sum())
        assert [found.fpr for found in result.at] == [0.05, 0.01]
        for point in result.at:
            fpr, tpr, _ = roc_curve(
                np.repeat([0, 1], len(seen)),
                np.concatenate([seen["clean_score"], seen["attacked_score"][at]]),
                drop_intermediate=False,
            )
            assert point.tpr.value == pytest.approx(tpr[fpr <= point.fpr + 1e-9].max())


class Some(Noise):
    """Noise on the images of one class; the others stay as they are."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        eps: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        noisy = super().run(model, images, labels, eps, generator)
        return torch.where((labels == self.label)[:, None, None, None], noisy, images)


def page_of(found: Assessment, folder: Path) -> str:
    return " ".join(write_report(found, folder).read_text(encoding="utf-8").split())


def test_images_that_an_attack_left_alone_are_not_there_to_be_found(tmp_path: Path) -> None:
    found = run(plan=AssessmentPlan(Some(1), (0.05, 0.1), batch_size=8))
    seen, detection = found.observations, found.detection
    assert seen is not None
    assert detection is not None
    assert detection.threshold is not None
    changed = seen["label"] == 1
    assert len(detection.results) == 4
    for number, result in enumerate(detection.results):
        scores = seen["attacked_score"][divmod(number, 2)][changed]
        assert result.tpr is not None
        assert result.n == result.tpr.n == 10
        assert result.tpr.successes == int((scores > detection.threshold).sum())
        area = roc_auc_score([0] * 20 + [1] * 10, np.concatenate([seen["clean_score"], scores]))
        assert result.auroc.value == pytest.approx(area)
    page = page_of(found, tmp_path)
    assert "n = 20 clean, 10 attacked" in page
    assert "are not counted as attacked" in page


def test_an_attack_that_changes_nothing_leaves_nothing_to_detect(tmp_path: Path) -> None:
    found = run(plan=AssessmentPlan(Some(7), (0.05,), batch_size=8))
    assert found.detection is not None
    assert found.detection.results == ()
    assert found.detection.fpr is not None
    assert "there is nothing to detect" in page_of(found, tmp_path)


def test_a_detector_without_a_threshold_has_an_auroc_and_no_rates() -> None:
    model = defended_model()
    assert model.detector is not None
    model.detector.calibration = None
    detection = run(model).detection
    assert detection is not None
    assert detection.fpr is None
    assert detection.results[0].tpr is None
    assert detection.results[0].auroc.value is not None


@pytest.mark.parametrize("attack", [None, Noise()])
def test_an_interrupted_run_goes_on_and_gives_the_same(
    attack: Attack | None, tmp_path: Path
) -> None:
    made = plan() if attack is None else AssessmentPlan(attack, (0.05, 0.1), batch_size=8)
    undisturbed = run(plan=made)
    with pytest.raises(KeyboardInterrupt):
        run(plan=made, scenes=Scenes(20, fails_at=9), parts=tmp_path, key="k")
    assert [path.name for path in tmp_path.iterdir()] == ["part-00000.npz"]
    scenes = Scenes(20)
    told: list[tuple[int, int]] = []
    resumed = run(
        plan=made,
        scenes=scenes,
        parts=tmp_path,
        key="k",
        progress=lambda done, total: told.append((done, total)),
    )
    assert scenes.asked == list(range(8, 20))
    assert told == [(8, 20), (16, 20), (20, 20)]
    assert resumed == undisturbed
    assert same_observations(resumed, undisturbed)
    again = Scenes(20)
    assert run(plan=made, scenes=again, parts=tmp_path, key="k") == undisturbed
    assert again.asked == []


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def replace(path: Path) -> None:
    np.savez(path, key=np.array("other"), label=np.zeros(8))


def objects(path: Path) -> None:
    np.savez(path, key=np.array([{"a": 1}], dtype=object))


@pytest.mark.parametrize("spoil", [damage, truncate, replace, objects, Path.unlink])
def test_a_bad_part_is_measured_again_and_the_others_are_kept(spoil: Any, tmp_path: Path) -> None:
    first = run(parts=tmp_path, key="k")
    spoil(tmp_path / "part-00001.npz")
    scenes = Scenes(20)
    assert run(scenes=scenes, parts=tmp_path, key="k") == first
    assert scenes.asked == list(range(8, 16))


@pytest.mark.parametrize(
    "changes", [{"key": "other"}, {"plan": plan(seed=1)}, {"plan": plan(epsilons=(0.01, 0.02))}]
)
def test_parts_of_another_run_are_not_taken(changes: dict[str, Any], tmp_path: Path) -> None:
    run(parts=tmp_path, key="k")
    scenes = Scenes(20)
    run(scenes=scenes, parts=tmp_path, **{"key": "k", **changes})
    assert len(scenes.asked) == 20


def test_parts_serve_another_confidence_level(tmp_path: Path) -> None:
    run(parts=tmp_path, key="k")
    scenes = Scenes(20)
    found = run(scenes=scenes, parts=tmp_path, key="k", plan=plan(level=0.8))
    assert scenes.asked == []
    assert found.majority.level == 0.8


def test_an_absent_part_is_none(tmp_path: Path) -> None:
    assert load_part(tmp_path / "none.npz", "k") is None


def test_the_size_of_a_batch_does_not_change_the_answers() -> None:
    small = run(plan=plan(batch_size=3))
    for one, other in zip(small.conditions, assessment().conditions, strict=True):
        assert one.accuracy == other.accuracy
        assert one.confusion == other.confusion


def test_the_model_and_the_global_random_state_stay_as_they_are() -> None:
    model = defended_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, numpy_state = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    run(model, plan=AssessmentPlan(Noise(), (0.1,)))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(state, torch.get_rng_state())
    assert numpy_state == str(np.random.get_state())  # noqa: NPY002


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    def attempt(names: Sequence[str] = ("a", "b"), n: int = 2, **options: Any) -> None:
        model = options.pop("model", defended_model())
        assess(model, Scenes(n), names, plan(), **options)

    with pytest.raises(InputError, match="name for each of 2"):
        attempt(names=["a"])
    with pytest.raises(InputError, match="paths"):
        attempt(names=[], n=0)
    with pytest.raises(InputError, match="key"):
        attempt(parts=tmp_path)
    with pytest.raises(InputError, match="training mode in"):
        attempt(model=defended_model().train())
