"""SEMMA, stage by stage: sample, explore, modify, model, assess.

Each stage is a method of :class:`Pipeline`. It first sees to the stages before it, then returns
its result: from the run folder where it is complete with the same inputs, else by doing the work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.utils.data import DataLoader

from jernih.assess import Assessment, AssessmentPlan, Background, assess, write_report
from jernih.attacks import ATTACKS, Attack
from jernih.classifiers import (
    Classifier,
    load_classifier,
    restore_classifier,
    save_classifier,
)
from jernih.config import RunConfig, Section, Unit
from jernih.data.defects import Checks
from jernih.data.explore import Exploration, class_weights, explore
from jernih.data.manifest import Manifest
from jernih.data.modify import Augment, ImageDataset, Prepare, augmentation_figure
from jernih.data.sample import SplitPlan, sample
from jernih.data.sources import SOURCES
from jernih.defended import Defended
from jernih.detectors import DETECTORS, Calibration, Detector
from jernih.purifiers import PURIFIERS, Purifier, restore_purifier, save_purifier
from jernih.randomness import generator, seeded
from jernih.run_folder import RunFolder
from jernih.storage import read_json, sha256_file, write_json, write_text
from jernih.train import TrainingData, fit_classifier, fit_purifier
from jernih.validate import InputError

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the number of images done and the number in all."""


class Reporter:
    """Hears of the run's progress; this one writes to the log. The command line draws bars."""

    show_training_progress = False

    def stage(self, name: str, state: str) -> None:
        """A stage is ``"running"``, ``"complete"``, or was ``"complete before"``."""
        log.info("%s: %s", name, state)

    def progress(self, label: str) -> Progress:
        """Return a callback for the images done so far of a piece of work called ``label``."""
        return lambda done, total: log.debug("%s: %d of %d", label, done, total)


@dataclass(frozen=True)
class AttackCheck:
    """How the attack does on validation images, before anything is trained against it.

    Attributes:
        eps: bound on the perturbation.
        n: images that the classifier gets right when they are clean.
        fooled: how many of those it gets wrong when attacked.
    """

    eps: float
    n: int
    fooled: int


class Pipeline:
    """A run: one config, one folder, five stages.

    Args:
        config: all settings.
        out: the run folder; by default the config's.
        reporter: what hears of progress.

    Example:
        >>> from jernih import Pipeline, load_config
        >>> pipeline = Pipeline(load_config(), out="runs/demo")  # doctest: +SKIP
        >>> pipeline.assess().accuracy("restored", eps=0.03).value  # doctest: +SKIP
    """

    def __init__(
        self,
        config: RunConfig,
        out: str | Path | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        config.check_units()
        self.config = config
        self.folder = RunFolder(config.out if out is None else out)
        self.reporter = reporter or Reporter()
        cuda = torch.cuda.is_available()
        if config.device == "cuda" and not cuda:
            raise InputError("device", "a CUDA device on this machine", "none found")
        self.device = "cuda" if cuda and config.device != "cpu" else "cpu"

    def run(self) -> Assessment:
        """Run all stages that are not complete, one process at a time in this folder."""
        with self.folder.locked():
            write_text(self.folder.path / "config.yaml", self._config_text())
            return self.assess()

    def sample(self) -> Manifest:
        """Sample: the manifest of all images with their splits."""
        return self._sample

    def explore(self) -> Exploration:
        """Explore: what the images are like, and the defects among them."""
        return self._explore

    def modify(self) -> dict[str, ImageDataset]:
        """Modify: the prepared images of each split, without the defects."""
        return self._modify

    def model(self) -> Defended:
        """Model: classifier, attack check, purifier and detector, as one defended model."""
        _ = self.attack_check()
        detector = self._detector
        return Defended(self._classifier, self._purifier, detector).eval().to(self.device)

    def attack_check(self) -> tuple[AttackCheck, ...]:
        """Attack the classifier on validation images, to see that the attack works."""
        return self._attack_check

    def assess(self) -> Assessment:
        """Assess: clean, attacked and restored for each epsilon; writes the report."""
        return self._assess

    @functools.cached_property
    def _sample(self) -> Manifest:
        settings = self.config.sample
        source = SOURCES.create(settings.source.name, **settings.source.options)
        workdir = self.folder.stage("sample") / "images"
        listing = [
            [str(item.path), item.label, item.split, item.patient, stat.st_size, stat.st_mtime_ns]
            for item in source(workdir)
            for stat in [item.path.stat()]
        ]
        key = self.folder.key(
            {"settings": _plain(settings), "seed": self.config.seed, "files": listing}
        )
        with self._stage("sample", key) as folder:
            if folder is not None:
                split = settings.split
                plan = SplitPlan(
                    test=split.test,
                    val=split.val,
                    stratify=split.stratify,
                    seed=self.config.seed,
                    limit={str(name): n for name, n in split.limit.items()},
                )
                manifest = sample(source, plan, workdir, self.reporter.progress("sample"))
                manifest.save(folder)
        return Manifest.load(self.folder.path / "sample")

    @functools.cached_property
    def _explore(self) -> Exploration:
        manifest = self.sample()
        settings = self.config.explore
        key = self.folder.key(
            {"drop": _plain(settings)["drop"], "sample": self.folder.outputs("sample")}
        )
        with self._stage("explore", key) as folder:
            if folder is not None:
                checks = Checks() if settings.drop is None else Checks(drop=settings.drop)
                explore(manifest, folder, checks=checks, progress=self.reporter.progress("explore"))
        return Exploration.load(self.folder.path / "explore")

    @functools.cached_property
    def _modify(self) -> dict[str, ImageDataset]:
        manifest = self.explore().clean(self.sample())
        settings = self.config.modify
        key = self.folder.key(
            {"settings": _plain(settings), "explore": self.folder.outputs("explore")}
        )
        prepare = Prepare(settings.size, settings.fit)
        augment = Augment(
            settings.rotation,
            settings.flip,
            settings.zoom,
            settings.brightness,
            seed=self.config.seed,
        )
        datasets = {
            name: ImageDataset(manifest.split(name), prepare, augment if name == "train" else None)
            for name in ("train", "val", "test")
        }
        with self._stage("modify", key) as folder:
            if folder is not None:
                augmentation_figure(datasets["train"], folder / "augmented.png")
        return datasets

    @functools.cached_property
    def _classifier(self) -> Classifier:
        datasets = self.modify()
        settings = self.config.model
        choice = settings.classifier
        key = self._key(
            classifier=_plain(choice),
            weights=_digest(choice.weights),
            training=_plain(settings.classifier_training),
            imbalance=self.config.explore.imbalance,
            device=self.device,
        )
        with self._stage("model/classifier", key) as folder:
            if folder is not None:
                manifest = datasets["train"].manifest
                classifier = load_classifier(
                    **_plain(choice), classes=manifest.classes, seed=self.config.seed
                )
                if settings.classifier_training is not None:
                    weights = class_weights(manifest)
                    imbalance = self.config.explore.imbalance
                    draw = weights[datasets["train"].labels] if imbalance == "augment" else None
                    fit_classifier(
                        classifier,
                        TrainingData(datasets["train"], datasets["val"], draw),
                        settings.classifier_training,
                        folder,
                        seed=self.config.seed,
                        class_weights=weights if imbalance == "weights" else None,
                        device=self.device,
                        show_progress=self.reporter.show_training_progress,
                    )
                save_classifier(classifier, folder / "classifier.safetensors")
        return restore_classifier(self.folder.path / "model/classifier/classifier.safetensors")

    def _key(self, **inputs: Any) -> str:
        """The fingerprint of a stage that works on the modified images."""
        return self.folder.key(
            {
                **inputs,
                "seed": self.config.seed,
                "modify": _plain(self.config.modify),
                "explore": self.folder.outputs("explore"),
            }
        )

    @contextlib.contextmanager
    def _stage(self, name: str, key: str) -> Iterator[Path | None]:
        """Yield the folder of a stage that has to be done, or None when it is complete."""
        if self.folder.is_complete(name, key):
            self.reporter.stage(name, "complete before")
            yield None
            return
        self.reporter.stage(name, "running")
        yield self.folder.begin(name, key)
        self.folder.complete(name, key)
        self.reporter.stage(name, "complete")

    def _attack(self) -> Attack:
        choice = self.config.model.attack
        return ATTACKS.create(choice.name, **choice.options)

    @functools.cached_property
    def _attack_check(self) -> tuple[AttackCheck, ...]:
        classifier = self._classifier
        settings = self.config.model
        key = self._key(
            attack=_plain(settings.attack),
            epsilons=settings.epsilons,
            classifier=self.folder.outputs("model/classifier"),
        )
        with self._stage("model/attack", key) as folder:
            if folder is not None:
                checks = self._check_attack(classifier.frozen().to(self.device))
                write_json(folder / "attack.json", [dataclasses.asdict(c) for c in checks])
        saved = read_json(self.folder.path / "model/attack/attack.json")
        return tuple(AttackCheck(**check) for check in saved)

    def _check_attack(self, target: Classifier) -> list[AttackCheck]:
        attack, epsilons = self._attack(), self.config.model.epsilons
        right = 0
        fooled = [0] * len(epsilons)
        for number, (images, labels) in enumerate(self._batches("val", "attack check")):
            with torch.no_grad():
                correct = target(images).argmax(1) == labels
            right += int(correct.sum())
            source = generator(self.config.seed, "attack check", number)
            for place, result in enumerate(
                attack.sweep(target, images, labels, epsilons, generator=source)
            ):
                fooled[place] += int((result.success & correct).sum())
        checks = [AttackCheck(e, right, n) for e, n in zip(epsilons, fooled, strict=True)]
        for check in checks:
            log.info("eps %g fools %d of %d validation images", check.eps, check.fooled, check.n)
        return checks

    def _batches(self, split: str, label: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels of a split on the run's device, with progress."""
        dataset = self.modify()[split]
        progress = self.reporter.progress(label)
        done = 0
        loader = DataLoader(
            dataset, self.config.assess.batch_size, generator=generator(self.config.seed, label)
        )
        for images, labels, _ in loader:
            yield images.to(self.device), labels.to(self.device)
            done += len(images)
            progress(done, len(dataset))

    @functools.cached_property
    def _purifier(self) -> Purifier:
        classifier = self._classifier
        settings = self.config.model
        choice = settings.purifier
        key = self._key(
            purifier=_plain(choice),
            weights=_digest(settings.purifier_weights),
            training=_plain(settings.purifier_training),
            clean_share=settings.clean_share,
            attack=_plain(settings.attack),
            epsilons=settings.epsilons,
            classifier=self.folder.outputs("model/classifier"),
            device=self.device,
        )
        with self._stage("model/purifier", key) as folder:
            if folder is not None:
                purifier = self._new_purifier()
                if purifier.trainable and settings.purifier_training is not None:
                    datasets = self.modify()
                    fit_purifier(
                        purifier,
                        classifier,
                        self._attack(),
                        settings.epsilons,
                        TrainingData(datasets["train"], datasets["val"]),
                        settings.purifier_training,
                        folder,
                        clean_share=settings.clean_share,
                        seed=self.config.seed,
                        device=self.device,
                        show_progress=self.reporter.show_training_progress,
                    )
                save_purifier(purifier, folder / "purifier.safetensors")
        return restore_purifier(self.folder.path / "model/purifier/purifier.safetensors")

    def _new_purifier(self) -> Purifier:
        settings = self.config.model
        choice = settings.purifier
        if settings.purifier_weights is not None:
            purifier = restore_purifier(settings.purifier_weights)
            if purifier.name != choice.name:
                raise InputError("model.purifier_weights", f"a {choice.name!r}", purifier.name)
            return purifier
        with seeded(self.config.seed, "purifier"):
            purifier = PURIFIERS.create(choice.name, **choice.options)
        if purifier.trainable and settings.purifier_training is None:
            raise InputError(
                "model.purifier_training", "training settings, or purifier_weights", "neither"
            )
        return purifier

    @functools.cached_property
    def _detector(self) -> Detector | None:
        choice: Unit | None = self.config.model.detector
        if choice is None:
            return None
        classifier, purifier = self._classifier, self._purifier
        detector = DETECTORS.create(
            choice.name, classifier=classifier, purifier=purifier, **choice.options
        )
        key = self._key(
            detector=_plain(choice),
            fpr=self.config.model.fpr,
            classifier=self.folder.outputs("model/classifier"),
            purifier=self.folder.outputs("model/purifier"),
        )
        with self._stage("model/detector", key) as folder:
            if folder is not None:
                detector.to(self.device).eval()
                with torch.no_grad():
                    batches = self._batches("val", "detector")
                    scores = torch.cat([detector(images).cpu() for images, _ in batches])
                calibration = detector.calibrate(scores, self.config.model.fpr)
                card = {
                    "detector": detector.describe(),
                    "calibration": dataclasses.asdict(calibration),
                    "clean_scores": scores.tolist(),
                }
                write_json(folder / "detector.json", card)
        card = read_json(self.folder.path / "model/detector/detector.json")
        detector.calibration = Calibration(**card["calibration"])
        return detector

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


def _plain(part: Section | Unit | None) -> Any:
    """A part of the config as plain data."""
    return None if part is None else part.model_dump(mode="json")


def _digest(file: str | None) -> str | None:
    """The hash of a weights file, so that another file under the same name is noticed."""
    if file is None:
        return None
    path = Path(file).expanduser()
    if not path.is_file():
        raise InputError("weights", "an existing .safetensors file", path)
    return sha256_file(path)
