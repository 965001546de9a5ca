"""The first half of Model: the classifier, and a check that the attack works on it."""

from __future__ import annotations

import dataclasses
import functools
import logging
from dataclasses import dataclass

import torch

from jernih.attacks import ATTACKS, Attack
from jernih.cards import history_text, read_history
from jernih.classifiers import Classifier, load_classifier, restore_classifier, save_classifier
from jernih.config import Unit
from jernih.data.explore import class_weights
from jernih.pipeline.data import DataStages
from jernih.pipeline.stages import digest, plain
from jernih.randomness import generator
from jernih.storage import read_json, write_json, write_text
from jernih.train import AdversarialTraining, TrainingData, fit_classifier

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


class ClassifierStages(DataStages):
    """The stages from images to a classifier that an attack was tried on."""

    def classifier(self) -> Classifier:
        """The classifier, trained or taken as it is."""
        return self._classifier

    def attack_check(self) -> tuple[AttackCheck, ...]:
        """Attack the classifier on validation images, to see that the attack works."""
        return self._attack_check

    @functools.cached_property
    def _classifier(self) -> Classifier:
        datasets = self.modify()
        settings = self.config.model
        choice = settings.classifier
        imbalance = self.config.explore.imbalance
        key = self._key(
            "train",
            "val",
            classifier=plain(choice),
            weights=digest(choice.weights),
            training=plain(settings.classifier_training),
            adversarial=plain(settings.adversarial_training),
            imbalance=imbalance,
            device=self.device,
        )
        with self._stage("model/classifier", key, together=True) as folder:
            if folder is not None:
                manifest = datasets["train"].manifest
                classifier = load_classifier(
                    **plain(choice), classes=manifest.classes, seed=self.config.seed
                )
                if settings.classifier_training is not None:
                    weights = class_weights(manifest)
                    draw = weights[datasets["train"].labels] if imbalance == "augment" else None
                    fit_classifier(
                        classifier,
                        TrainingData(datasets["train"], datasets["val"], draw),
                        settings.classifier_training,
                        folder,
                        seed=self.config.seed,
                        class_weights=weights if imbalance == "weights" else None,
                        adversarial=self._adversarial_training(),
                        device=self.device,
                        show_progress=self.reporter.show_training_progress,
                    )
                elif choice.weights is not None and (history := read_history(choice.weights)):
                    write_text(folder / "history.csv", history_text(history))
                if self.world.leads:
                    save_classifier(classifier, folder / "classifier.safetensors")
        file = self.folder.path / "model/classifier/classifier.safetensors"
        return restore_classifier(file, trust_code=True)  # this run has just written it

    def _adversarial_training(self) -> AdversarialTraining | None:
        choice = self.config.model.adversarial_training
        if choice is None:
            return None
        return AdversarialTraining(self._attack(choice.attack), choice.share)

    def _attack(self, choice: Unit | None = None) -> Attack:
        wanted = self.config.model.attack if choice is None else choice
        return ATTACKS.create(wanted.name, **wanted.options)

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
