"""Certified accuracy of a defended model on a data set, measured in parts that are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor, nn

from jernih.assess.figures.style import new_figure, tidy
from jernih.assess.observations import load_part, save_part
from jernih.assess.result import Rate
from jernih.assess.statistics import rate
from jernih.assess.summarise import describe_models, device_of
from jernih.certify.smoothing import ABSTAINED, Smoothing, largest_radius
from jernih.data.modify import ImageDataset
from jernih.defended import Defended
from jernih.randomness import generator
from jernih.storage import fingerprint, read_json, to_json, write_json
from jernih.validate import InputError, check_count
from jernih.world import in_shares

Array = NDArray[Any]

_NAMES = ("label", "class", "radius", "count")
PARTS_VERSION = 2

STEPS = 200
"""Points of the drawn curve."""


@dataclass(frozen=True)
class CertifyPlan:
    """What to certify, and how surely.

    Attributes:
        sigma: standard deviation of the noise, on the scale of images in [0, 1].
        candidates: draws that name the candidate class.
        samples: draws that bound its share.
        alpha: the chance that the promise about an image is wrong.
        radii: L2 radii to report the certified accuracy at.
        limit: number of images to draw at random; None for all.
        level: confidence level of the intervals over images.
        seed: seed of the noise and of that draw.
    """

    sigma: float
    candidates: int = 100
    samples: int = 10_000
    alpha: float = 0.001
    radii: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    limit: int | None = None
    level: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class CertifiedImage:
    """One image: its label, the smoothed model's class (None: it abstains) and the radius."""

    path: str
    label: str
    answer: str | None
    radius: float
    count: int


@dataclass(frozen=True)
class CertifiedAccuracy:
    """Which share of the images is right at a radius, against any attacker at all.

    Attributes:
        plan: what was asked for.
        n: number of images.
        of: number of images that they were drawn from.
        accuracy: share right without an attack; an abstention counts as wrong.
        abstained: share without an answer.
        certified: for each radius of the plan, the share that is right and stays so within it.
        largest: the radius that unanimous answers would give: no curve goes farther.
        models: descriptions of classifier and purifier.
        images: what was found for each image.
    """

    plan: CertifyPlan
    n: int
    of: int
    accuracy: Rate
    abstained: Rate
    certified: tuple[Rate, ...]
    largest: float | None
    models: dict[str, Any]
    images: tuple[CertifiedImage, ...]

    def save(self, path: Path) -> Path:
        """Write it as JSON."""
        return write_json(path, json.loads(to_json(asdict(self))))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote."""
        return TypeAdapter(cls).validate_python(read_json(path))


def certify(
    defended: Defended,
    dataset: ImageDataset,
    plan: CertifyPlan,
    *,
    parts: Path | None = None,
    key: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> CertifiedAccuracy:
    """Certify a defended model on the images of a data set.

    Args:
        defended: purifier and classifier in evaluation mode; they stay as they are.
        dataset: images with their labels, of the classifier's classes.
        plan: how many draws of which noise, and what to report.
        parts: folder for finished images, from which an interrupted run goes on.
        key: fingerprint of models and data, needed with ``parts``.
        progress: called with images done and images in all.

    Raises:
        InputError: for an empty data set, ``parts`` without ``key``, no radii or negative ones,
            and what :class:`Smoothing` refuses.
    """
    if parts is not None and not key:
        raise InputError("key", "a fingerprint of models and data", "none")
    if len(dataset) == 0:
        raise InputError("dataset", "at least one image", "none")
    if not plan.radii or min(plan.radii) < 0:
        raise InputError("radii", "at least one, none of them negative", plan.radii)
    device = device_of(defended)
    smoothing = Smoothing(
        _Cut(defended.frozen()).eval(),
        plan.sigma,
        candidates=plan.candidates,
        samples=plan.samples,
        alpha=plan.alpha,
    )
    positions = _positions(len(dataset), plan)

    def work(number: int) -> dict[str, Array]:
        values = _one(smoothing, dataset, positions[number], plan, device, parts, key)
        if progress is not None:
            progress(number + 1, len(positions))
        return values

    numbers = range(len(positions))
    done = list(in_shares(numbers, lambda: work, kept=parts is not None))
    joined = {name: np.array([values[name] for values in done]) for name in _NAMES}
    right = joined["class"] == joined["label"]
    classes = defended.classifier.classes
    largest = largest_radius(plan.sigma, plan.samples, plan.alpha)
    return CertifiedAccuracy(
        plan=plan,
        n=len(positions),
        of=len(dataset),
        accuracy=rate(right, plan.level),
        abstained=rate(joined["class"] == ABSTAINED, plan.level),
        certified=tuple(rate(right & (joined["radius"] >= r), plan.level) for r in plan.radii),
        largest=largest if np.isfinite(largest) else None,
        models=describe_models(defended),
        images=tuple(
            CertifiedImage(
                path=str(dataset.manifest.records[position].path),
                label=classes[int(values["label"])],
                answer=None if values["class"] == ABSTAINED else classes[int(values["class"])],
                radius=float(values["radius"]),
                count=int(values["count"]),
            )
            for position, values in zip(positions, done, strict=True)
        ),
    )


class _Cut(nn.Module):
    """The model on noisy images cut to [0, 1], all that purifiers and classifiers ever saw.

    The cut is a part of the model that is smoothed: what is certified of that, holds.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, 3, H, W) of any values."""
        logits: Tensor = self.model(images.clamp(0, 1))
        return logits


def draw_certified(found: CertifiedAccuracy) -> Figure:
    """Certified accuracy over the radius, with its interval."""
    title = f"Certified accuracy, any attacker in L2 (σ = {found.plan.sigma:g}, n = {found.n})"
    figure = new_figure(6.4, 4.0, title)
    axes = figure.subplots()
    farthest = found.largest or max(found.plan.radii)
    radii = np.linspace(0, farthest, STEPS)
    right = np.array([image.answer == image.label for image in found.images])
    reached = np.array([image.radius for image in found.images])
    rates = [rate(right & (reached >= radius), found.plan.level) for radius in radii]
    axes.fill_between(radii, [r.low for r in rates], [r.high for r in rates], alpha=0.2)
    axes.plot(radii, [r.value for r in rates])
    axes.set(xlabel="L2 radius, images in [0, 1]", ylabel="right within the radius", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    tidy(axes)
    return figure


def _positions(size: int, plan: CertifyPlan) -> Sequence[int]:
    if plan.limit is None or check_count("limit", plan.limit) >= size:
        return range(size)
    source = generator(plan.seed, "certify", plan.limit)
    return sorted(torch.randperm(size, generator=source)[: plan.limit].tolist())


def _one(
    smoothing: Smoothing,
    dataset: ImageDataset,
    position: int,
    plan: CertifyPlan,
    device: torch.device,
    parts: Path | None,
    key: str,
) -> dict[str, Array]:
    """What is known of one image, or what is found out now."""
    file = None if parts is None else parts / f"part-{position:06d}.npz"
    asked = [plan.sigma, plan.candidates, plan.samples, plan.alpha, plan.seed]
    mark = fingerprint([PARTS_VERSION, key, asked, position])
    values = None if file is None else load_part(file, mark, _NAMES)
    if values is None:
        image, label, _ = dataset[position]
        source = generator(plan.seed, "certify", position)
        found = smoothing.certify(image[None].to(device), generator=source)
        values = {
            "label": np.array(label),
            "class": found.classes[0].numpy(),
            "radius": found.radii[0].numpy(),
            "count": found.counts[0].numpy(),
        }
        if file is not None:
            save_part(file, mark, values)
    return values
