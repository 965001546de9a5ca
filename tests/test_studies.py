"""Configs of publications run, made small here, and tell what they promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from jernih.config import load_config
from jernih.pipeline import Pipeline

ROOT = Path(__file__).parents[1]
SMALLER = {
    "study-a": [
        "sample.split.limit={train: 24, val: 19, test: 8}",
        "model.purifier_training.epochs=1",
        "model.others={JPEG 75: {purifier: {name: jpeg}}}",
    ],
    "study-b": [
        "sample.split.limit={train: 32, val: 24, test: 16}",
        "model.purifier_training.epochs=1",
    ],
}
SURVEYS = (
    "assess.surveys=[{title: sweep, epsilons: [0.001, 0.002, 0.005, 0.01]}, {title: through, "
    "attack: {name: pgd, steps: 2}, epsilons: [0.001, 0.01], knowledge: [adaptive], limit: 8}]"
)


@pytest.mark.slow
@pytest.mark.parametrize("study", SMALLER)
def test_a_study_runs_and_tells_all_published_figures(
    study: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # the configs name data and weights from here
    config = load_config(ROOT / f"configs/{study}.yaml", [*SMALLER[study], SURVEYS])
    assert config.published is not None
    assert shared.is_dir()
    Pipeline(config, out=tmp_path / "run").run()
    report = (tmp_path / "run/assess/report.html").read_text(encoding="utf-8")
    assert "Published vs measured" in report
    for figure in config.published.figures:
        assert f'<th scope="row">{figure.figure}</th>' in report
    for words in ("Important areas", "sweep", "through", "Layers of the purifier"):
        assert words in report
    if study == "study-b":
        assert "154,748,003" in report
        assert "Decision threshold for PNEUMONIA" in report


@pytest.mark.slow
def test_magnet_runs_and_compares_its_detectors(tmp_path: Path) -> None:
    smaller = [
        "sample.source={name: phantom, images: 60, size: 64}",
        "modify.size=64",
        "model.classifier_training.epochs=1",
        "model.purifier_training.epochs=1",
        "model.fpr=0.2",  # of six images to calibrate on
    ]
    config = load_config(ROOT / "configs/magnet-phantom.yaml", smaller)
    Pipeline(config, out=tmp_path / "run").run()
    report = (tmp_path / "run/assess/report.html").read_text(encoding="utf-8")
    for name in config.assess.detection[0].detectors:
        assert name in report
    assert "rejected" in report
