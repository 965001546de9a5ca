"""A small defended model with a known weakness, and assessments made to order."""

from __future__ import annotations

import functools
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from jernih.assess import Assessment, AssessmentPlan, assess
from jernih.assess.measure import BINS
from jernih.assess.observations import Array, Observations
from jernih.assess.summarise import summarise
from jernih.attacks import FGSM
from jernih.classifiers import Classifier
from jernih.defended import Defended
from jernih.detectors import ReconstructionError
from jernih.purifiers import Identity
from jernih.purifiers.base import Purifier
from jernih.randomness import generator

SIZE = 32
CLASSES = ("dark", "bright")


class Smooth(Purifier):
    """The mean of 2 × 2 pixels, which wipes out a checkerboard."""

    name: ClassVar[str] = "smooth"
    learns: Literal["nothing"] = "nothing"

    def restore(self, images: Tensor) -> Tensor:
        small = functional.avg_pool2d(images, 2)
        return functional.interpolate(small, scale_factor=2, mode="nearest")


class Template(nn.Module):
    """Mean brightness of an image, and a checkerboard that only an attack can show it."""

    def __init__(self) -> None:
        super().__init__()
        row, column = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
        board = ((row + column) % 2 * 2 - 1).float()
        self.weight = nn.Parameter((1 + 6 * board) / SIZE**2)

    def forward(self, images: Tensor) -> Tensor:
        z = 60 * ((images.mean(1) - 0.5) * self.weight).sum((1, 2))
        return torch.stack([-z, z], 1)


class Scenes(Dataset[tuple[Tensor, int, int]]):
    """Dark and bright flat images under noise; remembers which of them were asked for."""

    def __init__(self, n: int, fails_at: int | None = None) -> None:
        self.n = n
        self.fails_at = fails_at
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        if index == self.fails_at:
            raise KeyboardInterrupt
        self.asked.append(index)
        label = index % 2
        level = 0.48 + 0.028 * label + 0.002 * (index % 7)
        noise = 0.05 * torch.rand(3, SIZE, SIZE, generator=generator("scene", index))
        return level + noise - 0.025, label, index


def defended_model(purifier: Purifier | None = None, *, detector: bool = True) -> Defended:
    """A classifier that a checkerboard fools, a purifier that removes it, and a detector."""
    classifier = Classifier(Template(), CLASSES, description={"name": "template"})
    used = Smooth() if purifier is None else purifier
    found = ReconstructionError(classifier, used) if detector else None
    if found is not None:
        scenes = torch.stack([Scenes(24)[i][0] for i in range(24)])
        found.calibrate(found(scenes).detach(), 0.1)
    return Defended(classifier, used, found).eval()


def plan(**changes: Any) -> AssessmentPlan:
    """FGSM with two bounds, known and unknown purifier."""
    options: dict[str, Any] = {"epsilons": ("2/255", "4/255"), "batch_size": 8, **changes}
    return AssessmentPlan(FGSM(), **options)


def run(model: Defended | None = None, n: int = 20, **options: Any) -> Assessment:
    """Assess the model on n scenes."""
    scenes = options.pop("scenes", None) or Scenes(n)
    made = options.pop("plan", None) or plan()
    names = [f"scene-{i}.png" for i in range(n)]
    return assess(model or defended_model(), scenes, names, made, **options)


@functools.cache
def assessment() -> Assessment:
    """One assessment for all tests that only look at it."""
    return run(meta={"created": "2026-01-01T00:00:00Z"})


def made_to_order(
    right: dict[str, Array],
    labels: Array | None = None,
    made: AssessmentPlan | None = None,
    model: Defended | None = None,
    **values: Array,
) -> Assessment:
    """An assessment of which every image's outcome is given.

    Args:
        right: which images are right when "clean" and "purified", (n,), and when "attacked",
            "attacked_8bit" and "restored", (knowledge, bound, n); what is absent is right.
        labels: class of each image, by default one after the other.
        made: the plan.
        model: the model named in it.
        values: further observations by name.
    """
    used = made or plan()
    n = len(next(iter(right.values())).T)
    true = np.arange(n) % 2 if labels is None else labels
    shape = (len(used.knowledge), len(used.bounds), n)

    def predicted(kind: str, size: tuple[int, ...]) -> Array:
        hits = right.get(kind, np.ones(size, dtype=bool))
        return np.where(hits, np.broadcast_to(true, size), 1 - np.broadcast_to(true, size))

    seen: dict[str, Array] = {"label": true, "clean_softmax": np.zeros(n, dtype=bool)}
    for kind in ("clean", "purified"):
        seen[f"{kind}_pred"] = predicted(kind, (n,))
    for kind in ("attacked", "restored"):
        seen[f"{kind}_pred"] = predicted(kind, shape)
    rounded = "attacked_8bit" if "attacked_8bit" in right else "attacked"
    seen["attacked_pred_8bit"] = predicted(rounded, shape)
    for kind in ("clean", "purified", "attacked", "restored"):
        seen[f"{kind}_conf"] = np.full(seen[f"{kind}_pred"].shape, 0.9)
        seen[f"{kind}_prob1"] = np.where(seen[f"{kind}_pred"] == 1, 0.9, 0.1)
    for name, size in (
        ("clean", (n,)),
        ("purified", (n,)),
        ("attacked", shape),
        ("restored", shape),
    ):
        for quantity, value in (("mse", 0.01), ("psnr", 20.0), ("ssim", 0.9), ("score", 1.0)):
            seen[f"{name}_{quantity}"] = np.full(size, value)
    seen["linf"], seen["l2"] = np.full(shape, 0.01), np.full(shape, 0.5)
    seen["histogram"] = np.ones((*shape[:2], BINS), dtype=np.int64)
    seen["probe"] = np.zeros((0, 6), dtype=np.int64)
    seen["example_key"] = np.zeros((0, 4), dtype=np.int64)
    seen["example_images"] = np.zeros((0, 3, 3, SIZE, SIZE), dtype=np.float16)
    observations = Observations([f"{i}.png" for i in range(n)], {**seen, **values})
    return summarise(observations, model or defended_model(Identity(), detector=False), used, {})
