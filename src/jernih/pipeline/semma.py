"""The whole of SEMMA: sample, explore, modify, model, assess."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import yaml

from jernih.assess import Assessment, AssessmentPlan, Background, assess, write_report
from jernih.data.modify import ImageDataset
from jernih.defended import Defended
from jernih.pipeline.model import ModelStages
from jernih.storage import read_json, write_text


class Pipeline(ModelStages):
    """A run: one config, one folder, five stages.

    Args:
        config: all settings.
        out: the run folder; by default the config's.
        reporter: what hears of progress.

    Example:
        >>> from jernih import Pipeline, load_config
        >>> pipeline = Pipeline(load_config(), out="runs/demo")  # doctest: +SKIP
        >>> defended = pipeline.model()  # doctest: +SKIP
        >>> pipeline.assess().condition("clean").accuracy.value  # doctest: +SKIP
    """

    def run(self) -> Assessment:
        """Run all stages that are not complete, one process at a time in this folder."""
        with self.folder.locked():
            write_text(self.folder.path / "config.yaml", self._config_text())
            return self.assess()

    def assess(self) -> Assessment:
        """Assess: clean, attacked and restored for each epsilon; writes the report."""
        return self._assess

    @functools.cached_property
    def _assess(self) -> Assessment:
        defended = self.model()
        settings = self.config.assess
        dataset = self.modify()["test"]
        plan = AssessmentPlan(
            self._attack(),
            self.config.model.epsilons,
            settings.knowledge,
            settings.batch_size,
            settings.level,
            self.config.seed,
        )
        parts = ["model/classifier", "model/purifier"]
        if defended.detector is not None:
            parts.append("model/detector")
        key = self._key(
            "test",
            explore=self.folder.outputs("explore"),
            plan=plan.describe(),
            models=[self.folder.outputs(part) for part in parts],
            title=self.config.title,
        )
        with self._stage("assess", key) as folder:
            if folder is not None:
                self._write_assessment(defended, dataset, plan, folder, key)
        return Assessment.load(self.folder.path / "assess" / "assessment.json")

    def _write_assessment(
        self,
        defended: Defended,
        dataset: ImageDataset,
        plan: AssessmentPlan,
        folder: Path,
        key: str,
    ) -> None:
        run = self.folder.path
        paths = [str(record.path) for record in dataset.manifest.records]
        assessment = assess(
            defended,
            dataset,
            paths,
            plan,
            parts=folder / "parts",
            key=key,
            progress=self.reporter.progress("assess"),
            meta={"title": self.config.title},
        )
        exploration = read_json(run / "explore" / "explore.json")
        pictures = {name: run / "explore" / file for name, file in exploration["figures"].items()}
        pictures["augmented training images"] = run / "modify" / "augmented.png"
        histories = {
            name: file
            for name in ("classifier", "purifier")
            if (file := run / "model" / name / "history.csv").is_file()
        }
        background = Background(
            title=self.config.title,
            data=exploration,
            pictures=pictures,
            histories=histories,
            config=self._config_text(),
        )
        write_report(assessment, folder, background)
        shutil.rmtree(folder / "parts")

    def _config_text(self) -> str:
        return yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False)
