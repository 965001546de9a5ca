from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torchmetrics.functional.classification import (
    binary_auroc,
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_f1_score,
)

from jernih.assess.metrics import _class_estimates, ranking, score
from jernih.assess.statistics import Array, Bootstrap

CLASSES = ("a", "b", "c")


@pytest.fixture
def answers() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    return labels, np.where(rng.random(60) < 0.6, labels, rng.integers(0, 3, 60))


def test_scores_agree_with_scikit_learn_and_torchmetrics(answers: tuple[Array, Array]) -> None:
    labels, predictions = answers
    found = score(labels, predictions, np.zeros(60), CLASSES, Bootstrap(60, 0))
    report = sk.classification_report(
        labels, predictions, target_names=CLASSES, output_dict=True, zero_division=0
    )
    for row in found.per_class:
        expected = report[row.name]
        assert (row.precision, row.recall, row.f1) == pytest.approx(
            (expected["precision"], expected["recall"], expected["f1-score"])
        )
        assert row.support == expected["support"]
    for average, name in ((found.macro, "macro avg"), (found.weighted, "weighted avg")):
        assert average.f1 == pytest.approx(report[name]["f1-score"])
        assert average.precision == pytest.approx(report[name]["precision"])
        assert average.recall == pytest.approx(report[name]["recall"])
        assert average.support == 60
    both = torch.tensor(predictions), torch.tensor(labels)
    micro = multiclass_accuracy(*both, num_classes=3, average="micro")
    macro = multiclass_accuracy(*both, num_classes=3, average="macro")
    assert found.accuracy.value == pytest.approx(float(micro))
    assert found.balanced_accuracy.value == pytest.approx(float(macro), rel=1e-5)
    f1 = multiclass_f1_score(*both, num_classes=3, average="macro")
    assert found.f1_macro.value == pytest.approx(float(f1), rel=1e-5)
    matrix = np.zeros((3, 3), dtype=int)
    for cell in found.confusion:
        matrix[CLASSES.index(cell.true), CLASSES.index(cell.predicted)] = cell.count
    assert (matrix == multiclass_confusion_matrix(*both, num_classes=3).numpy()).all()
    assert found.auroc is None


def test_a_weighted_estimate_is_that_of_the_resampled_images(answers: tuple[Array, Array]) -> None:
    labels, predictions = answers
    balanced, f1 = _class_estimates(labels, predictions, np.unique(labels))
    weights = Bootstrap(60, 5).weights[:20]
    for row, by_weight, f1_by_weight in zip(weights, balanced(weights), f1(weights), strict=True):
        drawn = np.repeat(np.arange(60), row.astype(int))
        assert by_weight == pytest.approx(
            sk.balanced_accuracy_score(labels[drawn], predictions[drawn]), rel=1e-5
        )
        assert f1_by_weight == pytest.approx(
            sk.f1_score(labels[drawn], predictions[drawn], average="macro", labels=[0, 1, 2]),
            rel=1e-5,
        )


def test_ranking_agrees_with_scikit_learn_also_under_ties_and_weights() -> None:
    rng = np.random.default_rng(1)
    positive = rng.random(50) < 0.4
    scores = np.round(rng.random(50) + 0.3 * positive, 1)
    bootstrap = Bootstrap(50, 2)
    found, curve = ranking(scores, positive, np.arange(50), bootstrap)
    assert found.value == pytest.approx(sk.roc_auc_score(positive, scores))
    assert found.value == pytest.approx(
        float(binary_auroc(torch.tensor(scores), torch.tensor(positive).long())), rel=1e-5
    )
    assert float(np.trapezoid(curve.tpr, curve.fpr)) == pytest.approx(found.value)
    areas = []
    for row in bootstrap.weights:
        drawn = np.repeat(np.arange(50), row.astype(int))
        areas.append(sk.roc_auc_score(positive[drawn], scores[drawn]))
    low, high = np.quantile(areas, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high))


def test_a_two_class_classifier_has_an_auroc_of_its_second_class() -> None:
    labels, probability = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9])
    found = score(labels, (probability > 0.5).astype(int), probability, ("n", "p"), Bootstrap(4, 0))
    assert found.auroc is not None
    assert found.auroc.value == pytest.approx(0.75)
    assert found.roc is not None
    assert found.roc.tpr[-1] == found.roc.fpr[-1] == 1


def test_averages_run_over_the_classes_present_in_a_large_label_space() -> None:
    classes = tuple(f"class {i}" for i in range(1000))
    labels = np.array([7, 7, 500, 999])
    predictions = np.array([7, 3, 500, 998])
    found = score(labels, predictions, np.zeros(4), classes, Bootstrap(4, 0))
    assert [row.name for row in found.per_class] == ["class 7", "class 500", "class 999"]
    assert found.balanced_accuracy.value == pytest.approx((0.5 + 1 + 0) / 3)
    assert found.macro.recall == pytest.approx((0.5 + 1 + 0) / 3)
    assert found.weighted.recall == pytest.approx(found.accuracy.value)
    wrong = {(cell.true, cell.predicted) for cell in found.confusion if cell.true != cell.predicted}
    assert wrong == {("class 7", "class 3"), ("class 999", "class 998")}


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    rng = np.random.default_rng(4)
    positive = rng.random(3000) < 0.5
    _, curve = ranking(rng.random(3000), positive, np.arange(3000), Bootstrap(3000, 0))
    assert len(curve.fpr) <= 200
    assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)


def test_the_share_of_the_commonest_answer() -> None:
    found = score(
        np.array([0, 1, 2, 2]), np.array([1, 1, 1, 2]), np.zeros(4), CLASSES, Bootstrap(4, 0)
    )
    assert (found.top_prediction, found.top_share.successes, found.top_share.n) == ("b", 3, 4)


def test_an_area_of_nearly_equal_pairs_lies_within_its_interval() -> None:
    """Attacked scores a little above those of the same images unchanged: a weak attack's."""
    n = 140
    clean = np.random.default_rng(5).random(n)
    scores = np.concatenate([clean, clean + 1e-5])
    found, _ = ranking(
        scores, np.repeat([False, True], n), np.tile(np.arange(n), 2), Bootstrap(n, 0)
    )
    assert found.value == pytest.approx(0.5, abs=0.005)
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high
    assert found.high - found.low < 0.02
    same, _ = ranking(
        np.concatenate([clean, clean + 2]),
        np.repeat([False, True], n),
        np.tile(np.arange(n), 2),
        Bootstrap(n, 0),
    )
    assert (same.low, same.value, same.high) == (1, 1, 1)
