"""Training of classifiers, with attacked images among the clean ones where wanted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from jernih.attacks import Attack
from jernih.classifiers import Classifier
from jernih.config import Training
from jernih.randomness import generator
from jernih.train.base import Batch, Task, TrainingData, fit


@dataclass(frozen=True)
class AdversarialTraining:
    """Attacked images in the training of a classifier (Madry et al., arXiv:1706.06083).

    Attributes:
        attack: what attacks the classifier as it is at every step; its bound is the one used.
        share: share of each batch that is attacked; the rest stays clean (Goodfellow et al.,
            arXiv:1412.6572, take one half; Madry et al. all).
    """

    attack: Attack
    share: float = 0.5


def fit_classifier(
    classifier: Classifier,
    data: TrainingData,
    settings: Training,
    folder: Path,
    *,
    seed: int = 0,
    class_weights: Tensor | None = None,
    adversarial: AdversarialTraining | None = None,
    device: str = "cpu",
    show_progress: bool = False,
) -> Path:
    """Train a classifier in place with cross-entropy; the weights of the best epoch stay.

    With two classes and a one-logit network this is binary cross-entropy.

    Args:
        classifier: the classifier to train.
        data: training and validation images.
        settings: how to train.
        folder: receives ``history.csv``, TensorBoard logs and, while it runs, checkpoints from
            which an interrupted training goes on.
        seed: seed of order, augmentation, dropout and attack.
        class_weights: weight of each class in the loss (K,).
        adversarial: mix attacked images in, in validation as in training, so that the best epoch
            is the one that is best on the mix.
        device: ``"cpu"`` or ``"cuda"``.
        show_progress: draw a progress bar.

    Returns:
        the path of the history, a CSV of losses and accuracies per epoch.
    """
    task = _ClassifierTask(classifier, settings, seed, class_weights, adversarial)
    return fit(task, data, settings, folder, seed, device, show_progress)


class _ClassifierTask(Task):
    def __init__(
        self,
        classifier: Classifier,
        settings: Training,
        seed: int,
        class_weights: Tensor | None,
        adversarial: AdversarialTraining | None,
    ) -> None:
        super().__init__(classifier, settings, seed)
        self.class_weights = class_weights
        self.adversarial = adversarial

    def _mixed(self, images: Tensor, labels: Tensor, source: torch.Generator) -> Tensor:
        """The batch with the first images attacked; batches are shuffled before."""
        if self.adversarial is None:
            return images
        count = round(self.adversarial.share * len(images))
        if count == 0:
            return images
        training = self.model.training
        self.model.eval()  # the attack must not move batch-norm statistics
        (attacked,) = self.adversarial.attack.perturb(
            self.model,
            images[:count],
            labels[:count],
            [self.adversarial.attack.eps],
            generator=source,
        )
        self.model.train(training)
        return torch.cat([attacked, images[count:]])

    def _step(self, batch: Batch, stage: str, source: torch.Generator) -> Tensor:
        images, labels, _ = batch
        logits = self.model(self._mixed(images, labels, source))
        weights = None if self.class_weights is None else self.class_weights.to(logits)
        loss = functional.cross_entropy(logits, labels, weight=weights)
        accuracy = (logits.argmax(1) == labels).float().mean()
        self.record({f"{stage}_loss": loss, f"{stage}_accuracy": accuracy}, len(labels))
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        source = generator(self.seed, "adversarial", self.current_epoch, batch_idx, *self.stream)
        return self._step(batch, "train", source)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        # The same images are attacked in every epoch; the loader keeps their order.
        self._step(batch, "val", generator(self.seed, "adversarial-val", batch_idx))
