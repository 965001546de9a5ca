"""One batch through everything: classifier, purifier, detector and attack."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from jernih.adaptive.signs import like_probabilities
from jernih.assess.observations import CASES, Array
from jernih.assess.plan import AssessmentPlan
from jernih.assess.probe import COLUMNS, probe
from jernih.attacks import distance
from jernih.defended import Defended, Inspection
from jernih.randomness import generator
from jernih.types import AttackResult
from jernih.validate import check_logits

BINS = 81
"""Bins of the perturbation histogram: an odd number, so that zero lies in the middle of one."""

SSIM_WINDOW = 11
"""Side of the SSIM window; smaller images have no SSIM."""

Example = tuple[int, int, int]
"""Indices of knowledge, bound and case."""


def all_examples(plan: AssessmentPlan) -> set[Example]:
    """Every example that the figures can show."""
    return {
        (k, e, case)
        for k in range(len(plan.knowledge))
        for e in range(len(plan.bounds))
        for case in range(len(CASES))
    }


def measure_batch(
    model: Defended,
    images: Tensor,
    labels: Tensor,
    plan: AssessmentPlan,
    batch: int,
    start: int,
    wanted: Iterable[Example],
) -> dict[str, Array]:
    """Measure one batch under all threats.

    Args:
        model: the defended model, frozen.
        images: clean images (N, C, H, W) in [0, 1], on the model's device.
        labels: their classes, int64 (N,), on the same device.
        plan: what to do.
        batch: number of the batch; with the plan's seed it fixes the attack's randomness.
        start: position of the batch's first image in the data set.
        wanted: examples that no earlier batch had.

    Returns:
        an array for each name in :data:`jernih.assess.observations.FIELDS`.

    Raises:
        InputError: for images, labels or a model of another form.
    """
    seen = model.inspect(images)
    logits = _logits(model, images)
    values = {
        "label": labels.cpu().numpy(),
        **_answers("clean", logits),
        "clean_softmax": like_probabilities(logits).cpu().numpy(),
        **_answers("purified", seen.logits),
        **_quality("purified", seen.restored, images),
        "clean_score": _scores(seen),
        "probe": _probes(model, images, labels, seen.restored, plan)
        if batch == 0
        else np.zeros((0, COLUMNS), np.int64),
    }
    gallery = _Gallery(images, values, start, set(wanted))
    rows: list[list[dict[str, Array]]] = []
    for k, knowledge in enumerate(plan.knowledge):
        results = plan.attack.sweep(
            model.classifier if knowledge == "oblivious" else plan.known(model, "assess", batch),
            images,
            labels,
            plan.bounds,
            generator=generator(plan.seed, "assess", knowledge, batch),
        )
        rows.append([])
        for e, result in enumerate(results):
            restored = model.inspect(result.images)
            # The attack has just asked the classifier itself, unless it went through the purifier.
            bare = result.logits if knowledge == "oblivious" else _logits(model, result.images)
            measured = _measure_attack(model, images, result, bare, restored)
            gallery.offer(k, e, measured, result.images, restored.restored)
            rows[-1].append(measured)
    attacked = {name: np.array([[m[name] for m in row] for row in rows]) for name in rows[0][0]}
    return {**values, **attacked, **gallery.arrays()}


def _measure_attack(
    model: Defended, images: Tensor, result: AttackResult, bare: Tensor, restored: Inspection
) -> dict[str, Array]:
    """The values of one attacked batch."""
    attacked = result.images
    delta = (attacked - images).clamp(-result.eps, result.eps)
    counts = torch.histc(delta.float().cpu(), bins=BINS, min=-result.eps, max=result.eps)
    rounded = _logits(model, (attacked * 255).round() / 255)
    return {
        **_answers("attacked", bare),
        "attacked_pred_8bit": rounded.argmax(1).cpu().numpy(),
        **_quality("attacked", attacked, images),
        "linf": _numpy(distance(images, attacked, "linf")),
        "l2": _numpy(distance(images, attacked, "l2")),
        "attacked_score": _scores(restored),
        **_answers("restored", restored.logits),
        **_quality("restored", restored.restored, images),
        "histogram": counts.numpy().astype(np.int64),
    }


def _probes(
    model: Defended, images: Tensor, labels: Tensor, restored: Tensor, plan: AssessmentPlan
) -> Array:
    """A row for the classifier and one for the defended model."""
    follows = plan.attack.needs == "gradients"
    rows = [
        probe(each, images, labels, seen, gradients=follows and knowledge in plan.knowledge)
        for each, seen, knowledge in (
            (model.classifier, images, "oblivious"),
            (plan.known(model, "probe"), restored, "adaptive"),
        )
    ]
    return np.stack(rows)


@torch.no_grad()
def _logits(model: Defended, images: Tensor) -> Tensor:
    return check_logits(model.classifier(images), len(images))


def _numpy(values: Tensor) -> Array:
    return values.detach().double().cpu().numpy()


def _scores(seen: Inspection) -> Array:
    if seen.scores is None:
        return np.full(len(seen.logits), np.nan)
    return _numpy(seen.scores)


def _answers(kind: str, logits: Tensor) -> dict[str, Array]:
    """Predictions, their confidence, and the probability of the second class."""
    probabilities = logits.double().softmax(1)
    confidence, predicted = probabilities.max(1)
    return {
        f"{kind}_pred": predicted.cpu().numpy(),
        f"{kind}_conf": _numpy(confidence),
        f"{kind}_prob1": _numpy(probabilities[:, 1]),
    }


@torch.no_grad()
def _quality(kind: str, others: Tensor, images: Tensor) -> dict[str, Array]:
    """MSE, PSNR in dB and SSIM of each image against its original.

    SSIM is that of the luminance over all windows that lie within the image, as its authors
    define it (Wang et al. 2004, doi:10.1109/TIP.2003.819861).
    """
    psnr = peak_signal_noise_ratio(others, images, data_range=1.0, reduction="none", dim=(1, 2, 3))
    ssim = torch.full((len(images),), torch.nan)
    if min(images.shape[-2:]) >= SSIM_WINDOW:
        _, everywhere = structural_similarity_index_measure(
            _luminance(others),
            _luminance(images),
            data_range=1.0,
            reduction="none",
            return_full_image=True,
        )
        edge = SSIM_WINDOW // 2
        ssim = everywhere[..., edge:-edge, edge:-edge].flatten(1).mean(1)
    return {
        f"{kind}_mse": _numpy((others - images).square().flatten(1).mean(1)),
        f"{kind}_psnr": _numpy(psnr),
        f"{kind}_ssim": _numpy(ssim),
    }


def _luminance(images: Tensor) -> Tensor:
    """Luminance (N, 1, H, W) by ITU-R BT.601; images that are not RGB, channel by channel."""
    if images.shape[1] != 3:
        return images
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


class _Gallery:
    """Picks the first image of each case that no earlier batch had."""

    def __init__(
        self, images: Tensor, clean: dict[str, Array], start: int, wanted: set[Example]
    ) -> None:
        self._images = images
        self._clean = clean
        self._start = start
        self._wanted = wanted
        self._keys: list[tuple[int, int, int, int]] = []
        self._stacks: list[Array] = []

    def offer(
        self, k: int, e: int, measured: dict[str, Array], attacked: Tensor, restored: Tensor
    ) -> None:
        label = self._clean["label"]
        right = self._clean["clean_pred"] == label
        fooled = measured["attacked_pred"] != label
        cured = measured["restored_pred"] == label
        position = self._start + np.arange(len(label))
        later = right & (position > 0)
        members = (
            position == 0,
            later & fooled & cured,
            later & fooled & ~cured,
            later & ~fooled & cured,
            later & ~fooled & ~cured,
        )
        for case, member in enumerate(members):
            if (k, e, case) in self._wanted and member.any():
                row = int(member.argmax())
                self._keys.append((k, e, case, self._start + row))
                trio = torch.stack([self._images[row], attacked[row], restored[row]])
                self._stacks.append(trio.detach().cpu().numpy().astype(np.float16))

    def arrays(self) -> dict[str, Array]:
        shape = (0, 3, *self._images.shape[1:])
        return {
            "example_key": np.array(self._keys, dtype=np.int64).reshape(-1, 4),
            "example_images": np.array(self._stacks, dtype=np.float16).reshape(-1, *shape[1:]),
        }
