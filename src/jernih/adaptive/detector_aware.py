"""Attacks that know the detector: wrong and not flagged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jernih.attacks import Attack, distance
from jernih.attacks.losses import other_classes
from jernih.defended import Defended
from jernih.detectors import Detector
from jernih.purifiers import Purifier
from jernih.purifiers.base import straight_through
from jernih.types import Threat
from jernih.validate import (
    InputError,
    check_count,
    check_images,
    check_labels,
    check_logits,
    check_number,
)


class DetectorAware(nn.Module):
    r"""A model and its detector as one model with a class more, "flagged".

    That class wins exactly where the score s lies above the threshold τ, so an attack that reaches
    another class has got past the detector too. It is the construction of Carlini & Wagner
    (arXiv:1705.07263), with a sum in place of their product, which wants positive logits:

    .. math:: z_K = \max_k z_k + c\,(s - τ)

    Attacks on it had better be targeted: an untargeted one is content with being flagged.

    Args:
        model: images → logits (N, K).
        detector: images → scores (N,), differentiable, higher is more suspicious. A defended
            model's own detector scores the image that the model restored, which is then restored
            once.
        threshold: scores above it are flagged; None for a calibrated detector's own.
        scale: c, what a unit of score weighs beside a unit of logit. It does not move the
            boundary, but the way there.

    Raises:
        InputError: for a threshold that is not finite or absent, or a scale that is not above 0.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)).eval()
        >>> class Brightness(torch.nn.Module):
        ...     def forward(self, images):
        ...         return images.mean((1, 2, 3))
        >>> model = DetectorAware(network, Brightness(), threshold=0.5)
        >>> images = torch.tensor([0.2, 0.8]).view(2, 1, 1, 1).expand(2, 3, 2, 2)
        >>> (model(images).argmax(1) == 2).tolist()
        [False, True]
    """

    def __init__(
        self,
        model: nn.Module,
        detector: nn.Module,
        threshold: float | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.detector = detector
        self.threshold = _threshold(detector, threshold)
        if check_number("scale", scale, 0, 1e9) == 0:
            raise InputError("scale", "a weight above 0", scale)
        self.scale = scale
        self.training = model.training or detector.training

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K + 1), the last of them for "flagged"."""
        logits, scores = _ask(self.model, self.detector, images)
        flagged = scores > self.threshold
        top = logits.max(1).values
        raw = top + (self.scale * (scores - self.threshold)).to(logits)
        # A small excess may be lost beside a large logit; who wins must not depend on it.
        last = straight_through(
            lambda sums: torch.where(
                flagged,
                torch.maximum(sums, torch.nextafter(top, torch.full_like(top, torch.inf))),
                torch.minimum(sums, top),
            ),
            raw,
        )
        return torch.cat([logits, last[:, None]], dim=1)


@dataclass(frozen=True)
class Evasion:
    """What an attack on model and detector made of N images, rechecked on both.

    Attributes:
        images: attacked images, float32 (N, C, H, W); where nothing was found, the clean ones.
        logits: the model's logits on them (N, K).
        scores: the detector's scores on them (N,).
        wrong: bool (N,): the model's class is not the true one.
        flagged: bool (N,): the score lies above the threshold.
        distances: size of each perturbation in the threat's norm (N,).
        threat: what the attacker could do.
    """

    images: Tensor
    logits: Tensor
    scores: Tensor
    wrong: Tensor
    flagged: Tensor
    distances: Tensor
    threat: Threat

    @property
    def success(self) -> Tensor:
        """Wrong and not flagged, bool (N,)."""
        return self.wrong & ~self.flagged


def evade(
    attack: Attack,
    model: nn.Module,
    detector: nn.Module,
    threshold: float | None,
    images: Tensor,
    labels: Tensor,
    *,
    targets: int = 3,
    scales: Sequence[float] = (1.0, 10.0, 0.1),
    slack: float = 0.0,
    generator: torch.Generator | None = None,
) -> Evasion:
    """Attack a model and its detector together, and keep what is wrong and not flagged.

    Images that are so without an attack stay as they are. For the others the attack is aimed at
    the most likely other classes of a :class:`DetectorAware`, one after the other and for one
    scale after the other; the first result that is wrong (of whatever class) and not flagged is
    kept, and the image leaves the work. Random numbers go by the images left, so with a random
    attack an image's result can depend on the others of its batch.

    Args:
        attack: an attack made with ``targeted=True``, with its bound.
        model: images → logits (N, K), in evaluation mode.
        detector: images → scores (N,), in evaluation mode.
        threshold: scores above it are flagged; None for a calibrated detector's own.
        images: float32 (N, C, H, W) in [0, 1].
        labels: true classes, int64 (N,).
        targets: how many other classes to aim at; with two classes there is one.
        scales: the weights of the score to try, in order.
        slack: by how much the score is to stay below the threshold while the attack works, so that
            8-bit rounding or randomness do not raise it above; the outcome is judged by the
            threshold itself.
        generator: source of the attack's randomness.

    Raises:
        InputError: for an attack that is not targeted, and for arguments of another form.
    """
    if not attack.targeted:
        raise InputError("attack", "one made with targeted=True", f"an untargeted {attack.name!r}")
    if not scales:
        raise InputError("scales", "at least one weight", "none")
    images = check_images(images)
    check_count("targets", targets)
    limit = _threshold(detector, threshold)
    aim = limit - check_number("slack", slack, 0, 1e9)
    with torch.no_grad():
        logits, scores = _ask(model, detector, images)
    check_labels(labels, len(images), logits.shape[1])
    others = other_classes(logits, labels, targets)
    best = images.clone()
    left = _indices(~_evades(logits, scores, labels, limit))
    for scale in scales:
        aware = DetectorAware(model, detector, aim, scale)
        for rank in range(others.shape[1]):
            if len(left) == 0:
                break
            made = attack.perturb(
                aware, images[left], others[left, rank], [attack.eps], generator=generator
            )[0]
            with torch.no_grad():
                found = _evades(*_ask(model, detector, made), labels[left], limit)
            best[left[found]] = made[found]
            left = left[~found]
    with torch.no_grad():
        logits, scores = _ask(model, detector, best)
    knows = any(isinstance(module, Purifier) for module in model.modules())
    return Evasion(
        images=best,
        logits=logits,
        scores=scores,
        wrong=logits.argmax(1) != labels,
        flagged=scores > limit,
        distances=distance(images, best, attack.norm),
        threat=Threat(
            attack.norm, attack.eps, "adaptive" if knows else "oblivious", detector_aware=True
        ),
    )


def _threshold(detector: nn.Module, threshold: float | None) -> float:
    if threshold is None and isinstance(detector, Detector):
        threshold = detector.threshold
    if threshold is None or not math.isfinite(threshold):
        raise InputError("threshold", "a finite number, or a calibrated detector", threshold)
    return float(threshold)


def _ask(model: nn.Module, detector: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and scores (N,)."""
    if (
        isinstance(model, Defended)
        and model.detector is detector
        and model.policy != "restore-flagged"
    ):
        restored = model.purifier(images)
        logits, scores = model.classifier(restored), model.detector.score(images, restored)
    else:
        logits, scores = model(images), detector(images)
    if scores.shape != (len(images),):
        raise InputError("detector", f"scores of shape ({len(images)},)", tuple(scores.shape))
    return check_logits(logits, len(images)), scores


def _evades(logits: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    return (logits.argmax(1) != labels) & (scores <= threshold)


def _indices(mask: Tensor) -> Tensor:
    return mask.nonzero().squeeze(1)
