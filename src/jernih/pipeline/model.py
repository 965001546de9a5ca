"""The second half of Model: purifiers, detector, and the defended model that they make."""

from __future__ import annotations

import dataclasses
import functools
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import default_collate

from jernih.config import Training, Unit
from jernih.data.explore import class_weights
from jernih.data.modify import ImageDataset
from jernih.data.unlabelled import unlabelled_files, with_unlabelled
from jernih.defended import Defended
from jernih.detectors import DETECTORS, Calibration, Detector
from jernih.harmless import HARMLESS, Harmless
from jernih.pipeline.classifier import AttackCheck, ClassifierStages
from jernih.pipeline.stages import digest, plain
from jernih.purifiers import (
    PURIFIERS,
    Purifier,
    purifier_file,
    restore_purifier,
    save_purifier,
)
from jernih.randomness import generator, seeded
from jernih.storage import fingerprint, read_json, write_json
from jernih.train import AdversarialSet, TrainingData, fit_purifier, write_adversarial_set
from jernih.validate import InputError
from jernih.weights import read_weights, write_tensors

__all__ = ["AttackCheck", "ModelStages"]

log = logging.getLogger(__name__)

DETECTOR_IMAGES = 1000
"""Most training images that a detector is fitted to."""
LEARNT = "learnt.safetensors"


class ModelStages(ClassifierStages):
    """The stages from images to a defended model."""

    def model(self) -> Defended:
        """Model: classifier, attack check, purifier and detector, as one defended model."""
        _ = self.attack_check()
        detector = self._detector
        defended = Defended(self._classifier, self._purifier, detector, self.config.model.policy)
        self._write_config()
        return defended.eval().to(self.device)

    def purifiers(self) -> dict[str, Purifier]:
        """The run's purifier as ``"main"``, and the others that it is compared with."""
        return {"main": self._purifier, **self._others}

    @functools.cached_property
    def _purifier(self) -> Purifier:
        settings = self.config.model
        return self._made_purifier(
            "model/purifier",
            settings.purifier,
            settings.purifier_weights,
            settings.purifier_training,
            settings.purifier_start,
        )

    @functools.cached_property
    def _others(self) -> dict[str, Purifier]:
        return {
            name: self._made_purifier(
                self.other_stage(name),
                other.purifier,
                other.weights,
                other.training or self.config.model.purifier_training,
            )
            for name, other in self.config.model.others.items()
        }

    @staticmethod
    def other_stage(name: str) -> str:
        """The stage folder of another purifier by its name in the config."""
        return "model/others/" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

    def _made_purifier(
        self,
        stage: str,
        choice: Unit,
        weights: str | None,
        training: Training | None,
        start: str | None = None,
    ) -> Purifier:
        """A purifier that is trained, fitted or loaded in a stage of its own."""
        classifier = self._classifier
        settings = self.config.model
        weights, start = _file(weights), _file(start)
        key = self._key(
            "train",
            "val",
            purifier=plain(choice),
            weights=digest(weights),
            **_members_key(choice),
            training=plain(training),
            **({"start": digest(start)} if start else {}),
            clean_share=settings.clean_share,
            **self._guidance_key(),
            attack=plain(settings.attack),
            attack_once=settings.attack_once,
            epsilons=settings.epsilons,
            classifier=self.folder.outputs("model/classifier"),
            device=self.device,
        )
        prepared = None
        new = self._new_purifier(choice, weights or start, training)
        trained = new.learns == "by gradient" and training is not None and weights is None
        if (
            trained
            and settings.attack_once
            and not self.world.told(self.folder.is_complete(stage, key))
        ):
            prepared = (self._adversarial_set("train"), self._adversarial_set("val"))
        with self._stage(stage, key, together=trained) as folder:
            if folder is not None:
                if new.learns == "in closed form" and weights is None:
                    new.fit(images for images, _ in self._batches("train", stage))
                elif trained and training is not None:
                    datasets = self.modify()
                    train = datasets["train"]
                    guidance = settings.guidance
                    draw = None
                    if guidance is not None and guidance.balanced:
                        draw = class_weights(train.manifest)[train.labels]
                    fit_purifier(
                        new,
                        classifier,
                        self._attack(),
                        settings.epsilons,
                        TrainingData(
                            with_unlabelled(
                                _as_they_are(train) if prepared else train, self._unlabelled
                            ),
                            datasets["val"],
                            draw,
                        ),
                        training,
                        folder,
                        clean_share=settings.clean_share,
                        guidance=guidance,
                        prepared=prepared,
                        seed=self.config.seed,
                        device=self.device,
                        show_progress=self.reporter.show_training_progress,
                    )
                if self.world.leads:
                    save_purifier(new, folder / "purifier.safetensors")
        return restore_purifier(self.folder.path / stage / "purifier.safetensors")

    @functools.cached_property
    def _unlabelled(self) -> list[Path]:
        guidance = self.config.model.guidance
        return unlabelled_files(guidance.unlabelled) if guidance and guidance.unlabelled else []

    def _guidance_key(self) -> dict[str, object]:
        guidance = self.config.model.guidance
        if guidance is None:
            return {}
        files = [(str(file), file.stat().st_size) for file in self._unlabelled]
        return {"guidance": plain(guidance), "unlabelled": files}

    def _new_purifier(
        self, choice: Unit, weights: str | None, training: Training | None
    ) -> Purifier:
        if weights is not None:
            found = restore_purifier(weights).name
            if found != choice.name:
                raise InputError("purifier weights", f"those of a {choice.name!r}", found)
            return restore_purifier(weights, **choice.options)
        with seeded(self.config.seed, "purifier"):
            purifier = PURIFIERS.create(choice.name, **choice.options)
        if purifier.learns == "by gradient" and training is None:
            raise InputError(
                "model.purifier_training", "training settings, or purifier_weights", "neither"
            )
        return purifier

    def _adversarial_set(self, split: str) -> AdversarialSet:
        """The images of a split and their attacked partners, as they are without augmentation."""
        classifier = self._classifier
        settings = self.config.model
        key = self._key(
            split,
            attack=plain(settings.attack),
            epsilons=settings.epsilons,
            classifier=self.folder.outputs("model/classifier"),
            device=self.device,
        )
        stage = f"model/adversarial-{split}"
        with self._stage(stage, key) as folder:
            if folder is not None:
                write_adversarial_set(
                    folder / "parts",  # where an interrupted try may leave what it has
                    classifier,
                    self._attack(),
                    settings.epsilons,
                    _as_they_are(self.modify()[split]),
                    seed=self.config.seed,
                    batch_size=self.config.assess.batch_size,
                    device=self.device,
                    progress=self.reporter.progress(f"attack {split}"),
                )
                for file in (folder / "parts").iterdir():
                    file.replace(folder / file.name)
        return AdversarialSet(self.folder.path / stage)

    @functools.cached_property
    def _detector(self) -> Detector | None:
        choice = self.config.model.detector
        return None if choice is None else self._made_detector(choice)

    def surveyed_detectors(self, units: Mapping[str, Unit]) -> dict[str, Detector]:
        """Fitted and calibrated detectors by the names that a survey gives them."""
        return {name: self._made_detector(unit) for name, unit in units.items()}

    def detector_stage(self, choice: Unit) -> str:
        """The stage folder of a detector: by what it is, so that surveys share it."""
        if choice == self.config.model.detector:
            return "model/detector"
        return f"model/detectors/{choice.name}-{fingerprint(plain(choice))[:8]}"

    def _made_detector(self, choice: Unit) -> Detector:
        """A detector that is fitted and calibrated in a stage of its own."""
        stage = self.detector_stage(choice)
        classifier, purifier = self._classifier, self._purifier
        detector = DETECTORS.create(
            choice.name, classifier=classifier, purifier=purifier, **choice.options
        )
        splits, fitted = ["val"], {}
        if detector.learns:
            settings = self.config.model
            splits.append("train")
            fitted = {"attack": plain(settings.attack), "epsilons": settings.epsilons}
        if self._harmless:
            fitted["harmless"] = [change.describe() for change in self._harmless]
        key = self._key(
            *splits,
            **fitted,
            detector=plain(choice),
            fpr=self.config.model.fpr,
            classifier=self.folder.outputs("model/classifier"),
            purifier=self.folder.outputs("model/purifier"),
        )
        with self._stage(stage, key) as folder:
            if folder is not None:
                detector.to(self.device).eval()
                if detector.learns:
                    detector.fit(self._some_unattacked, self._some_attacked)
                    write_tensors(folder / LEARNT, detector.learnt())
                with torch.no_grad():
                    found = [
                        torch.stack([detector(shown).cpu() for shown in self._changed(images, k)])
                        for k, (images, _) in enumerate(self._batches("val", "detector"))
                    ]
                scores, *harmless = torch.cat(found, 1)
                calibration = detector.calibrate(scores, self.config.model.fpr, harmless)
                card = {
                    "detector": detector.describe(),
                    "calibration": dataclasses.asdict(calibration),
                    "clean_scores": scores.tolist(),
                }
                if harmless:
                    card["harmless"] = fitted["harmless"]
                    card["harmless_scores"] = [changed.tolist() for changed in harmless]
                write_json(folder / "detector.json", card)
        folder = self.folder.path / stage
        if detector.learns:
            detector.restore_learnt(read_weights(folder / LEARNT))
        detector.calibration = Calibration(**read_json(folder / "detector.json")["calibration"])
        return detector

    @functools.cached_property
    def _harmless(self) -> list[Harmless]:
        return [HARMLESS.create(u.name, **u.options) for u in self.config.model.harmless]

    def _changed(self, images: Tensor, batch: int) -> list[Tensor]:
        """The images as they are, then under each change that detectors are to let pass."""
        return [
            images,
            *(
                change(images, generator=generator(self.config.seed, "let pass", k, batch))
                for k, change in enumerate(self._harmless)
            ),
        ]

    def _some_unattacked(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Training images to fit a detector to, as they are, and under each change in turn."""
        for number, (images, labels) in enumerate(self._some_clean()):
            yield images, labels
            if self._harmless:
                changed = self._changed(images, number)[1:]
                yield changed[number % len(changed)], labels

    def _some_clean(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Training images to fit a detector to, as they are, drawn from all classes."""
        data = _as_they_are(self.modify()["train"])
        source = generator(self.config.seed, "detector")
        chosen = torch.randperm(len(data), generator=source)[:DETECTOR_IMAGES].tolist()
        progress = self.reporter.progress("fit the detector")
        size = self.config.assess.batch_size
        for start in range(0, len(chosen), size):
            images, labels, _ = default_collate([data[k] for k in chosen[start : start + size]])
            yield images.to(self.device), labels.to(self.device)
            progress(min(start + size, len(chosen)), len(chosen))

    def _some_attacked(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The same images attacked, each batch with the next of the run's bounds."""
        attack, target = self._attack(), self._classifier.frozen().to(self.device)
        bounds = self.config.model.epsilons
        for number, (images, labels) in enumerate(self._some_clean()):
            source = generator(self.config.seed, "detector", number)
            bound = bounds[number % len(bounds)]
            made = attack.perturb(target, images, labels, [bound], generator=source)
            yield made[0], labels


def _as_they_are(dataset: ImageDataset) -> ImageDataset:
    """The same images without augmentation."""
    return ImageDataset(dataset.manifest, dataset.prepare)


def _file(weights: str | None) -> str | None:
    return None if weights is None else str(purifier_file(weights))


def _members_key(choice: Unit) -> dict[str, object]:
    """The hashes of the files that a purifier of several names, if it names any."""
    members = choice.options.get("members")
    files = [
        str(member["weights"])
        for member in (members if isinstance(members, (list, tuple)) else ())
        if isinstance(member, Mapping) and member.get("weights") is not None
    ]
    return {"members": [digest(_file(file)) for file in files]} if files else {}
