"""The whole of SEMMA: sample, explore, modify, model, assess."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from jernih.assess import Assessment, AssessmentPlan, Background, assess, write_report
from jernih.assess.checks import find_warnings
from jernih.assess.detection import DetectionPlan, survey_detection
from jernih.assess.detection_result import DetectionSurvey
from jernih.assess.figures.style import save_figure
from jernih.assess.layers import layer_summary
from jernih.assess.operating_point import OperatingPoint, operating_point
from jernih.assess.plan import SurveyPlan
from jernih.assess.published import lay_beside, nearest_bound
from jernih.assess.result import Finding
from jernih.assess.survey import survey
from jernih.assess.survey_result import Survey
from jernih.certify import CertifiedAccuracy, CertifyPlan, certify, draw_certified
from jernih.data.modify import ImageDataset
from jernih.defended import Defended
from jernih.detectors import Detector
from jernih.harmless import HARMLESS
from jernih.pipeline.areas import draw_areas
from jernih.pipeline.model import ModelStages
from jernih.pipeline.stages import plain
from jernih.storage import fingerprint, read_json
from jernih.validate import check_choice


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
            self._write_config()
            return self.assess()

    def assess(self) -> Assessment:
        """Assess: clean, attacked and restored for each epsilon; writes the report."""
        return self._assess

    def certify(self, plan: CertifyPlan) -> tuple[CertifiedAccuracy, Path]:
        """Certify the defended model on the test images; what it found, and the folder with it."""
        defended = self.model()
        parts, key = self._parts("certify", "model/classifier", "model/purifier")
        found = certify(
            defended,
            self.modify()["test"],
            plan,
            parts=parts / fingerprint([plan.sigma, plan.samples])[:16],
            key=key,
            progress=self.reporter.progress("certify"),
        )
        folder = self.folder.path / "certify" / f"sigma-{plan.sigma:g}"
        if self.world.leads:
            found.save(folder / "certify.json")
            save_figure(draw_certified(found), folder / "certify.png")
        return found, folder

    def findings(self) -> tuple[Finding, ...]:
        """What the report warns of, from the assessment and the surveys together."""
        assessment = self.assess()
        settings, folder = self.config.assess, self.folder.path / "assess" / "surveys"
        if not settings.surveys and not settings.detection:
            return assessment.warnings
        return find_warnings(
            assessment,
            [Survey.load(folder / f"survey-{k + 1}.json") for k in range(len(settings.surveys))],
            [
                DetectionSurvey.load(folder / f"detection-{k + 1}.json")
                for k in range(len(settings.detection))
            ],
        )

    @functools.cached_property
    def _assess(self) -> Assessment:
        defended = self.model()
        surveyed = any(choice.others for choice in self.config.assess.surveys)
        purifiers = self.purifiers() if surveyed else {"main": self._purifier}
        dataset = self.modify()["test"]
        models = ["model/classifier", "model/purifier"]
        if defended.detector is not None:
            models.append("model/detector")
        if surveyed:
            models += [self.other_stage(name) for name in self.config.model.others]
        detectors = [self.surveyed_detectors(c.detectors) for c in self.config.assess.detection]
        models += self._surveyed_stages()
        key = self._key(
            "test",
            explore=self.folder.outputs("explore"),
            assess=plain(self.config.assess),
            plan=self._plan().describe(),
            models=[self.folder.outputs(part) for part in models],
            published=plain(self.config.published),
            title=self.config.title,
            **self._policy_key(),
        )
        with self._stage("assess", key, together=True) as folder:
            if folder is not None:
                assessment = self._measure(defended, dataset)
                surveys = self._survey(defended, purifiers, dataset)
                detections = self._survey_detection(detectors, dataset)
                if self.world.leads:
                    background = self._background(defended, assessment, surveys, detections, folder)
                    write_report(assessment, folder, background)
        return Assessment.load(self.folder.path / "assess" / "assessment.json")

    def _plan(self) -> AssessmentPlan:
        settings = self.config.assess
        return AssessmentPlan(
            self._attack(),
            self.config.model.epsilons,
            settings.knowledge,
            settings.batch_size,
            settings.level,
            self.config.seed,
            settings.draws,
        )

    def _parts(self, name: str, *stages: str) -> tuple[Path, str]:
        """The folder of measured batches, kept for the next report, and what they depend on."""
        models = [self.folder.outputs(stage) for stage in stages]
        key = self._key("test", models=models, **self._policy_key())
        return self.folder.path / "measured" / name, key

    def _policy_key(self) -> dict[str, str]:
        """Nothing for the usual policy: runs finished before there were others stay finished."""
        policy = self.config.model.policy
        return {} if policy == "restore" else {"policy": policy}

    def _measure(self, defended: Defended, dataset: ImageDataset) -> Assessment:
        stages = ["model/classifier", "model/purifier"]
        if defended.detector is not None:
            stages.append("model/detector")
        parts, key = self._parts("assess", *stages)
        return assess(
            defended,
            dataset,
            [str(record.path) for record in dataset.manifest.records],
            self._plan(),
            parts=parts,
            key=key,
            progress=self.reporter.progress("assess"),
            meta={"title": self.config.title},
        )

    def _survey(
        self, defended: Defended, purifiers: dict[str, Any], dataset: ImageDataset
    ) -> list[Survey]:
        found = []
        settings = self.config.assess
        for choice in settings.surveys:
            chosen = purifiers if choice.others else {"main": purifiers["main"]}
            stages = ["model/classifier", "model/purifier"]
            stages += [self.other_stage(name) for name in chosen if name != "main"]
            plan = SurveyPlan(
                choice.title,
                AssessmentPlan(
                    self._attack(choice.attack),
                    choice.epsilons,
                    choice.knowledge,
                    settings.batch_size,
                    settings.level,
                    self.config.seed,
                    settings.draws,
                ),
                choice.limit,
                choice.labels,
            )
            name = fingerprint([plan.describe(), choice.limit, sorted(chosen)])[:16]
            parts, key = self._parts(name, *stages)
            found.append(
                survey(
                    defended.classifier,
                    {n: p.to(self.device).eval() for n, p in chosen.items()},
                    dataset,
                    plan,
                    parts=parts,
                    key=key,
                    progress=self.reporter.progress(choice.title),
                )
            )
        return found

    def _surveyed_stages(self) -> list[str]:
        units = [u for choice in self.config.assess.detection for u in choice.detectors.values()]
        return [self.detector_stage(unit) for unit in units]

    def _survey_detection(
        self, detectors: list[dict[str, Detector]], dataset: ImageDataset
    ) -> list[DetectionSurvey]:
        found = []
        settings = self.config.assess
        for choice, made in zip(settings.detection, detectors, strict=True):
            plan = DetectionPlan(
                choice.title,
                [(self._attack(each.attack), each.epsilons) for each in choice.attacks],
                [HARMLESS.create(unit.name, **unit.options) for unit in choice.harmless],
                settings.batch_size,
                settings.level,
                self.config.seed,
                choice.limit,
            )
            stages = [self.detector_stage(unit) for unit in choice.detectors.values()]
            name = fingerprint(["detection", plan.describe(), stages])[:16]
            parts, key = self._parts(name, "model/classifier", "model/purifier", *stages)
            found.append(
                survey_detection(
                    {n: detector.to(self.device).eval() for n, detector in made.items()},
                    dataset,
                    plan,
                    parts=parts,
                    key=key,
                    progress=self.reporter.progress(choice.title),
                )
            )
        return found

    def _background(
        self,
        defended: Defended,
        assessment: Assessment,
        surveys: list[Survey],
        detections: list[DetectionSurvey],
        folder: Path,
    ) -> Background:
        run = self.folder.path
        exploration = read_json(run / "explore" / "explore.json")
        pictures = {name: run / "explore" / file for name, file in exploration["figures"].items()}
        pictures["augmented training images"] = run / "modify" / "augmented.png"
        stages = {"classifier": "model/classifier", "purifier": "model/purifier"}
        stages |= {f"purifier {n}": self.other_stage(n) for n in self.config.model.others}
        published = self.config.published
        nearest = nearest_bound(published, surveys) if published else None
        size = self.config.modify.size
        return Background(
            title=self.config.title,
            data=exploration,
            pictures=pictures,
            histories={
                name: file
                for name, stage in stages.items()
                if (file := run / stage / "history.csv").is_file()
            },
            config=self._config_text(),
            study=published.study if published else "",
            compared=lay_beside(published, assessment, surveys) if published else (),
            study_notes=[*([nearest] if nearest else []), *(published.notes if published else ())],
            surveys=surveys,
            detections=detections,
            thresholds=self._thresholds(defended, assessment),
            layers={
                "classifier": layer_summary(defended.classifier, size),
                "purifier": layer_summary(defended.purifier, size),
            },
            areas=draw_areas(defended.classifier, assessment, folder / "figures"),
        )

    def _thresholds(self, defended: Defended, assessment: Assessment) -> dict[str, OperatingPoint]:
        """Decision thresholds for the wanted recall, of the classifier alone and defended."""
        wanted = self.config.assess.wanted_recall
        seen = assessment.observations
        if wanted is None or seen is None:
            return {}
        classes = defended.classifier.classes
        check_choice("assess.wanted_recall.positive", wanted.positive, classes[1:2])
        bare, through, labels = [], [], []
        with torch.no_grad():
            for images, label in self._batches("val", "threshold"):
                bare.append(defended.classifier(images).softmax(1)[:, 1].cpu())
                through.append(defended(images).softmax(1)[:, 1].cpu())
                labels.append(label.cpu())
        positive = torch.cat(labels).numpy() == 1
        if not all(0 < p.sum() < len(p) for p in (positive, seen["label"] == 1)):
            return {}  # without images of both classes there is nothing to choose
        return {
            name: operating_point(
                torch.cat(found).double().numpy(),
                positive,
                seen[field],
                seen["label"] == 1,
                classes=(classes[0], classes[1]),
                wanted_recall=wanted.recall,
                level=self.config.assess.level,
            )
            for name, found, field in (
                ("the classifier", bare, "clean_prob1"),
                ("the defended model", through, "purified_prob1"),
            )
        }
