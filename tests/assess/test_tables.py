from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jernih.assess.tables import SUMMARY_COLUMNS, summary_rows, write_tables
from jernih.purifiers import Identity
from jernih.validate import InputError
from tests.assess.examples import assessment, defended_model, run


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    written = write_tables(assessment(), tmp_path_factory.mktemp("tables"))
    return {name: pd.read_csv(path) for name, path in written.items()}


def test_a_row_for_no_attack_and_one_for_each_threat_model() -> None:
    rows = summary_rows(assessment())
    assert [row["Threat model"] for row in rows] == [
        "no attack",
        "oblivious fgsm, L∞ ≤ 2/255",
        "oblivious fgsm, L∞ ≤ 4/255",
        "adaptive fgsm, L∞ ≤ 2/255",
        "adaptive fgsm, L∞ ≤ 4/255",
    ]
    for row in rows:
        assert tuple(row) == SUMMARY_COLUMNS
        assert row["n"] == "20"
        assert all("[" in row[name] for name in ("Clean", "Restored"))
    assert rows[2]["Attacked"] == "0.0 % [0.0, 16.1]"
    assert rows[2]["Restored"] == "100.0 % [83.9, 100.0]"
    assert rows[0]["Attacked"] == "–"


def test_the_summary_holds_the_numbers_of_the_conditions(tables: dict[str, pd.DataFrame]) -> None:
    found = assessment()
    summary = tables["summary"]
    assert len(summary) == len(found.conditions)
    for (_, row), condition in zip(summary.iterrows(), found.conditions, strict=True):
        assert row["images"] == condition.which
        assert row["n"] == condition.n
        assert row["accuracy"] == condition.accuracy.value
        assert row["accuracy_low"] == condition.accuracy.low
        assert row["eps"] == (condition.threat.eps if condition.threat else 0)


def test_images_add_up_to_the_summary(tables: dict[str, pd.DataFrame]) -> None:
    images = tables["per_image"]
    assert len(images) == 4 * 20
    assert images["path"].nunique() == 20
    right = images["restored_prediction"] == images["label"]
    by_threat = right.groupby([images["knowledge"], images["eps"]]).mean()
    restored = tables["summary"].query("images == 'restored'")
    for _, row in restored.iterrows():
        assert by_threat[row["knowledge"], row["eps"]] == pytest.approx(row["accuracy"])
    flagged = images["flagged"].groupby([images["knowledge"], images["eps"]]).mean()
    for _, row in tables["detection"].iterrows():
        assert flagged[row["knowledge"], row["eps"]] == pytest.approx(row["tpr"])
    seen = assessment().observations
    assert seen is not None
    assert images["attacked_psnr"].to_numpy() == pytest.approx(seen["attacked_psnr"].ravel())
    assert images["score"].to_numpy() == pytest.approx(seen["attacked_score"].ravel())


def test_confusion_and_support_add_up_to_the_images(tables: dict[str, pd.DataFrame]) -> None:
    cells = tables["confusion"].groupby(["images", "knowledge", "eps"], dropna=False)["count"].sum()
    assert (cells == 20).all()
    assert len(cells) == len(assessment().conditions)
    averages = tables["per_class"].query("`class` == 'macro average'")
    assert (averages["support"] == 20).all()
    assert len(tables["tests"]) == 1 + 3 * 4


def test_without_a_detector_its_columns_are_empty(tmp_path: Path) -> None:
    written = write_tables(run(defended_model(Identity(), detector=False)), tmp_path)
    assert len(pd.read_csv(written["detection"])) == 0
    images = pd.read_csv(written["per_image"])
    assert images[["score", "flagged"]].isna().all(axis=None)
    assert np.isinf(images["restored_psnr"]).sum() == 0


def test_tables_need_the_observations(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="observations"):
        write_tables(dataclasses.replace(assessment(), observations=None), tmp_path)
