"""Model: the classifier, a check of the attack, the purifier and the detector."""

from __future__ import annotations

import dataclasses
import functools
import logging
from dataclasses import dataclass

import torch

from jernih.attacks import ATTACKS, Attack
from jernih.classifiers import (
    Classifier,
    load_classifier,
    restore_classifier,
    save_classifier,
)
from jernih.config import Unit
from jernih.data.explore import class_weights
from jernih.defended import Defended
from jernih.detectors import DETECTORS, Calibration, Detector
from jernih.pipeline.data import DataStages
from jernih.pipeline.stages import digest, plain
from jernih.purifiers import PURIFIERS, Purifier, restore_purifier, save_purifier
from jernih.randomness import generator, seeded
from jernih.storage import read_json, write_json
from jernih.train import TrainingData, fit_classifier, fit_purifier
from jernih.validate import InputError

log = logging.getLogger(__name__)


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


class ModelStages(DataStages):
    """The stages from images to a defended model."""

    def model(self) -> Defended:
        """Model: classifier, attack check, purifier and detector, as one defended model."""
        _ = self.attack_check()
        detector = self._detector
        return Defended(self._classifier, self._purifier, detector).eval().to(self.device)

    def attack_check(self) -> tuple[AttackCheck, ...]:
        """Attack the classifier on validation images, to see that the attack works."""
        return self._attack_check

    @functools.cached_property
    def _classifier(self) -> Classifier:
        datasets = self.modify()
        settings = self.config.model
        choice = settings.classifier
        key = self._key(
            "train",
            "val",
            classifier=plain(choice),
            weights=digest(choice.weights),
            training=plain(settings.classifier_training),
            imbalance=self.config.explore.imbalance,
            device=self.device,
        )
        with self._stage("model/classifier", key) as folder:
            if folder is not None:
                manifest = datasets["train"].manifest
                classifier = load_classifier(
                    **plain(choice), classes=manifest.classes, seed=self.config.seed
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

    def _attack(self) -> Attack:
        choice = self.config.model.attack
        return ATTACKS.create(choice.name, **choice.options)

    @functools.cached_property
    def _attack_check(self) -> tuple[AttackCheck, ...]:
        classifier = self._classifier
        settings = self.config.model
        key = self._key(
            "val",
            attack=plain(settings.attack),
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

    @functools.cached_property
    def _purifier(self) -> Purifier:
        classifier = self._classifier
        settings = self.config.model
        choice = settings.purifier
        key = self._key(
            "train",
            "val",
            purifier=plain(choice),
            weights=digest(settings.purifier_weights),
            training=plain(settings.purifier_training),
            clean_share=settings.clean_share,
            attack=plain(settings.attack),
            epsilons=settings.epsilons,
            classifier=self.folder.outputs("model/classifier"),
            device=self.device,
        )
        with self._stage("model/purifier", key) as folder:
            if folder is not None:
                purifier = self._new_purifier()
                datasets = self.modify()
                if purifier.learns == "in closed form" and settings.purifier_weights is None:
                    purifier.fit(images for images, _ in self._batches("train", "purifier"))
                elif purifier.learns == "by gradient" and settings.purifier_training is not None:
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
        if purifier.learns == "by gradient" and settings.purifier_training is None:
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
            "val",
            detector=plain(choice),
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
