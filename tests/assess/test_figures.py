from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jernih.assess.figures import catalogue, training_curves, write_figures, write_training_curves
from jernih.assess.figures.charts import accuracy_against_bound, confusion_matrices
from jernih.assess.figures.pixels import mse_per_image, perturbation_histogram, psnr_histogram
from jernih.types import Threat
from jernih.validate import InputError
from tests.assess.examples import assessment

PNG = b"\x89PNG\r\n"
THREAT = Threat("linf", 4 / 255, "adaptive")


def test_every_figure_names_threat_model_and_count() -> None:
    plots = catalogue(assessment())
    assert len({plot.key for plot in plots}) == len(plots) == 2 + 5 * 4
    for plot in plots:
        assert "n = 20" in plot.title
        assert "fgsm" in plot.title
        assert "n = 20" in plot.alt
        if plot.threat is not None:
            assert plot.threat.knowledge in plot.title
            assert "L∞ ≤" in plot.title


def test_figures_are_written_as_png_the_same_each_time(tmp_path: Path) -> None:
    found = dataclasses.replace(assessment(), observations=None)
    first, second = (write_figures(found, tmp_path / name) for name in "ab")
    assert set(first) == {plot.key for plot in catalogue(found) if plot.from_json}
    for key, path in first.items():
        assert path.read_bytes().startswith(PNG)
        assert path.read_bytes() == second[key].read_bytes()


def test_the_accuracy_chart_shows_the_numbers() -> None:
    found = assessment()
    axes = accuracy_against_bound(found, "t").axes[0]
    lines = {c.get_label(): c[0].get_ydata() for c in axes.containers}
    threats = [Threat("linf", eps, "adaptive") for eps in (2 / 255, 4 / 255)]
    restored = [found.condition("restored", t).accuracy.value for t in threats]
    purified = found.condition("clean through purifier").accuracy.value
    assert list(lines["restored, adaptive attacker"]) == [purified, *restored]
    assert len(lines) == 4


def test_the_charts_of_pixels_show_every_image() -> None:
    found = assessment()
    seen = found.observations
    assert seen is not None
    lines = mse_per_image(found, THREAT, "t").axes[0].lines
    assert np.array_equal(lines[0].get_ydata(), seen["attacked_mse"][1, 1])
    bars = psnr_histogram(found, THREAT, "t").axes[0].patches
    assert sum(bar.get_height() for bar in bars) == 2 * 20  # type: ignore[attr-defined]
    stairs = perturbation_histogram(found, THREAT, "t").axes[0].patches[0]
    assert stairs.get_data().values.sum() == pytest.approx(1)  # type: ignore[attr-defined]
    panels = confusion_matrices(found, THREAT, "t").axes
    assert [sum(int(text.get_text()) for text in axes.texts) for axes in panels] == [20, 20, 20]


def test_example_rows_show_the_predictions_under_that_threat() -> None:
    found = assessment()
    seen = found.observations
    assert seen is not None
    plot = next(p for p in catalogue(found) if p.key == "oblivious-4_255-examples")
    figure = plot.draw(plot.title)
    rows = [key for key in seen["example_key"] if tuple(key[:2]) == (0, 1)]
    assert len(figure.axes) == 5 * len(rows)
    titles = [axes.get_title().splitlines()[0] for axes in figure.axes]
    # The first image is dark; the attack makes it bright and the purifier takes that back.
    assert titles[:3] == ["clean: dark ✓", "attacked: bright ✗", "restored: dark ✓"]


@pytest.mark.parametrize(
    "columns", [["train_loss"], ["train_loss", "val_loss", "train_accuracy", "val_accuracy"]]
)
def test_training_curves_draw_what_there_is(columns: list[str], tmp_path: Path) -> None:
    history = pd.DataFrame({"epoch": [0, 1, 2], **{name: [3.0, None, 1.0] for name in columns}})
    figure = training_curves(history, "purifier")
    drawn = [line for axes in figure.axes for line in axes.lines]
    assert len(drawn) == len(columns)
    assert list(drawn[0].get_xdata()) == [0, 2]  # type: ignore[arg-type]
    history.to_csv(tmp_path / "h.csv", index=False)
    written = write_training_curves({"purifier": tmp_path / "h.csv"}, tmp_path)
    assert written["training-purifier"].read_bytes().startswith(PNG)


def test_a_history_without_curves_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="columns epoch"):
        training_curves(pd.DataFrame({"epoch": [0]}), "x")
    with pytest.raises(InputError, match="existing CSV"):
        write_training_curves({"x": tmp_path / "none.csv"}, tmp_path)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match="with columns"):
        write_training_curves({"x": tmp_path / "empty.csv"}, tmp_path)
