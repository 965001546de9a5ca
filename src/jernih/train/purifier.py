"""Training of purifiers on images attacked through a frozen classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from jernih.attacks import ATTACKS, Attack
from jernih.classifiers import Classifier
from jernih.config import Guidance, Training
from jernih.purifiers import Purifier
from jernih.randomness import generator, seeded
from jernih.train.adversarial_set import AdversarialSet
from jernih.train.base import Batch, Task, TrainingData, fit
from jernih.train.guidance import Guide, Seen
from jernih.train.judge import Judge
from jernih.train.pictures import show
from jernih.validate import InputError


def fit_purifier(
    purifier: Purifier,
    classifier: Classifier,
    attack: Attack,
    epsilons: Sequence[float],
    data: TrainingData,
    settings: Training,
    folder: Path,
    *,
    clean_share: float = 0.25,
    guidance: Guidance | None = None,
    prepared: tuple[AdversarialSet, AdversarialSet] | None = None,
    seed: int = 0,
    device: str = "cpu",
    show_progress: bool = False,
) -> Path:
    """Train a purifier in place to restore attacked images; the weights of the best epoch stay.

    Every batch is attacked afresh on the frozen classifier (an oblivious attacker), unless the
    attacked images are ``prepared`` or the purifier trains on clean images alone. Each image gets
    one of the epsilons at random, or stays clean.

    Args:
        purifier: the purifier to train.
        classifier: the classifier to attack; stays as it is.
        attack: the attack to train against.
        epsilons: its bounds.
        data: training and validation images; not varied when the attacked ones are prepared.
        settings: how to train.
        folder: as for :func:`fit_classifier`.
        clean_share: share of the images of a batch left clean, in [0, 1).
        guidance: what the loss weighs and whom the training is against; None for the purifier's
            own loss against the oblivious attacker.
        prepared: attacked images of the training and of the validation images.
        seed: seed of order, augmentation, epsilons and latent noise.
        device: ``"cpu"`` or ``"cuda"``.
        show_progress: draw a progress bar.

    Returns:
        the path of the history; its ``val_accuracy`` is that of restored validation images.

    Raises:
        InputError: for prepared images of other bounds or another number of images, and for
            images that are varied beside prepared ones.
    """
    if prepared is not None:
        for name, dataset, attacked in zip(
            ("train", "val"), (data.train, data.val), prepared, strict=True
        ):
            if attacked.epsilons != tuple(epsilons) or len(attacked) != len(dataset):
                raise InputError(
                    f"prepared {name}", "the bounds and images of this training", "others"
                )
        if data.train.augment is not None:
            raise InputError("data.train", "images as they are beside prepared ones", "varied ones")
    task = _PurifierTask(
        purifier, classifier, attack, epsilons, settings, seed, clean_share, guidance, prepared
    )
    return fit(task, data, settings, folder, seed, device, show_progress)


class _PurifierTask(Task):
    def __init__(
        self,
        purifier: Purifier,
        classifier: Classifier,
        attack: Attack,
        epsilons: Sequence[float],
        settings: Training,
        seed: int,
        clean_share: float,
        guidance: Guidance | None,
        prepared: tuple[AdversarialSet, AdversarialSet] | None,
    ) -> None:
        super().__init__(purifier, settings, seed)
        # In a list, the classifier is no submodule: it is neither trained nor checkpointed.
        self.target = [classifier.frozen()]
        self.attack = attack
        self.epsilons = list((guidance and guidance.epsilons) or epsilons)
        self.clean_share = clean_share
        self.trains_on = purifier.trains_on
        self.prepared = prepared
        self.guidance = guidance
        self.guide = Guide(self.target[0], guidance) if guidance else None
        self.through = None
        if guidance and guidance.through:
            self.through = ATTACKS.create(guidance.through.name, **guidance.through.options)
        self.attacks = [
            ATTACKS.create(unit.name, **unit.options)
            for unit in (guidance.attacks if guidance else ())
        ]
        # For attacks through both; in evaluation mode whatever the purifier is in.
        self.pipeline: list[nn.Module] = [nn.Sequential(purifier, self.target[0])]
        self.judge: nn.Module | None = None
        if guidance and guidance.recognise:
            if not purifier.feature_count:
                raise InputError(
                    "guidance.recognise", "0 for a purifier without features", guidance.recognise
                )
            with seeded(seed, "judge"):
                self.judge = Judge(purifier, len(classifier.classes))

    def on_fit_start(self) -> None:
        self.target[0].to(self.device)

    def _attacked(
        self,
        images: Tensor,
        labels: Tensor,
        choice: Tensor,
        source: torch.Generator,
    ) -> Tensor:
        """Each image attacked with the epsilon of its choice; the last choice is none."""
        guidance = self.guidance
        if self.training and guidance is not None:
            if self.through and float(torch.rand((), generator=source)) < guidance.through_share:
                bound = int(torch.randint(len(self.epsilons), (), generator=source))
                target = self.judge if self._recognises else None
                return self._through(images, labels, choice, self.epsilons[bound], source, target)
            if self.attacks:
                drawn = int(torch.randint(len(self.attacks) + 1, (), generator=source))
                if drawn < len(self.attacks):
                    # Most attacks do all their work anew for each bound: a batch gets one of them.
                    bound = int(torch.randint(len(self.epsilons), (), generator=source))
                    made = self.attacks[drawn].perturb(
                        self.target[0], images, labels, [self.epsilons[bound]], generator=source
                    )
                    return self._but_clean(made[0], images, choice)
        made = self.attack.perturb(self.target[0], images, labels, self.epsilons, generator=source)
        return torch.stack([*made, images])[choice, torch.arange(len(images))]

    def _through(
        self,
        images: Tensor,
        labels: Tensor,
        choice: Tensor,
        eps: float,
        source: torch.Generator,
        target: nn.Module | None = None,
    ) -> Tensor:
        """Images attacked through purifier and classifier, but for those chosen to stay clean."""
        if self.through is None:
            raise RuntimeError("no attack through the purifier is set")
        was = self.model.training
        self.model.eval()
        target = (target or self.pipeline[0]).eval()
        try:
            made = self.through.perturb(target, images, labels, [eps], generator=source)
        finally:
            self.train(was)
        return self._but_clean(made[0], images, choice)

    def _each(
        self,
        attack: Attack,
        images: Tensor,
        labels: Tensor,
        choice: Tensor,
        source: torch.Generator,
    ) -> Tensor:
        """Each image attacked at the bound of its choice alone."""
        made = images.clone()
        for bound, eps in enumerate(self.epsilons):
            its = (choice == bound).nonzero().flatten().to(images.device)
            if len(its):
                made[its] = attack.perturb(
                    self.target[0], images[its], labels[its], [eps], generator=source
                )[0]
        return made

    @property
    def _recognises(self) -> bool:
        """Whether this epoch is one of those in which the purifier learns to recognise."""
        return self.guidance is not None and self.current_epoch < self.guidance.recognise

    def _but_clean(self, attacked: Tensor, images: Tensor, choice: Tensor) -> Tensor:
        clean = (choice == len(self.epsilons)).to(images.device)
        return torch.where(clean[:, None, None, None], images, attacked)

    def _shown(
        self,
        batch: Batch,
        choice: Tensor,
        source: torch.Generator,
        prepared: AdversarialSet | None,
        seen: Seen | None,
    ) -> Tensor:
        """What the purifier is shown of a batch."""
        images, labels, index = batch
        if prepared is not None:
            return prepared.attacked(images, index, choice)
        return self._attacked(images, self._told(labels, seen), choice, source)

    def _told(self, labels: Tensor, seen: Seen | None) -> Tensor:
        """What attacks are told of each image."""
        if self.guidance and self.guidance.labels == "predicted" and seen is not None:
            return seen.log_probabilities.argmax(1)
        return labels

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images = batch[0]
        source = generator(self.seed, "purifier", self.current_epoch, batch_idx, *self.stream)
        seen = self._look(images)
        attacked = images
        if self.trains_on == "attacked":
            shares = torch.full((len(self.epsilons),), (1 - self.clean_share) / len(self.epsilons))
            weights = torch.cat([shares, torch.tensor([self.clean_share])])
            choice = torch.multinomial(weights, len(images), True, generator=source)
            attacked = self._shown(
                batch, choice, source, self.prepared[0] if self.prepared else None, seen
            )
        loss: Tensor
        if self.guide is None:
            loss = self.model.loss(attacked, images, source)  # type: ignore[operator]
        elif self.guidance is not None and (
            self._recognises or self.current_epoch < self.guidance.since
        ):
            loss = self.guide.pixels(self.model(attacked), images)
        else:
            loss = self.guide(self.model(attacked), images, seen)
        if self.judge is not None:
            told = self._told(batch[1], seen)
            loss = loss + functional.cross_entropy(self.judge(attacked), told)
        self.record({"train_loss": loss}, len(images))
        return loss

    def _look(self, images: Tensor) -> Seen | None:
        """What the classifier makes of clean images, where the loss or the attack wants it."""
        if self.guide is None:
            return None
        if self.training and self._recognises and self.guidance and self.guidance.labels == "true":
            return None
        with torch.no_grad():
            return self.guide.look(images)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images, labels, index = batch
        source = generator(self.seed, "purifier-val", batch_idx)
        choice = index.cpu() % len(self.epsilons)
        seen = self._look(images)
        attacked = self._shown(
            batch, choice, source, self.prepared[1] if self.prepared else None, seen
        )
        if batch_idx == 0:
            show(self, images, attacked)
        told = self._told(labels, seen)
        each = [self._each(attack, images, told, choice, source) for attack in self.attacks]
        found = [self._values(made, images, labels, seen) for made in (attacked, *each)]
        values = {name: torch.stack([one[name] for one in found]).mean() for name in found[0]}
        share = self.guidance.through_share if self.guidance and self.through else 0.0
        if share:
            # At the largest bound: a net that holds there holds within.
            attacked = self._through(images, told, choice, max(self.epsilons), source)
            through = self._values(attacked, images, labels, seen)
            values["val_loss"] = (1 - share) * values["val_loss"] + share * through["val_loss"]
            values["val_through_accuracy"] = through["val_accuracy"]
            if self.judge is not None:
                bound = max(self.epsilons)
                attacked = self._through(images, told, choice, bound, source, self.judge)
                right = self.judge(attacked).argmax(1) == labels
                values["val_recognised_accuracy"] = right.float().mean()
        self.record(values, len(images))

    def _values(
        self, attacked: Tensor, images: Tensor, labels: Tensor, seen: Seen | None
    ) -> dict[str, Tensor]:
        restored = self.model(attacked)
        loss = (
            self.guide(restored, images, seen)
            if self.guide
            else functional.mse_loss(restored, images)
        )
        accuracy = (self.target[0](restored).argmax(1) == labels).float().mean()
        return {"val_loss": loss, "val_accuracy": accuracy}
