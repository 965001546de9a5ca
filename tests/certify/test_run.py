"""Certified accuracy of a run, its record, and how it goes on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import jernih.certify.smoothing
from jernih.certify import CertifiedAccuracy, CertifyPlan, certify, draw_certified
from jernih.config import RunConfig
from jernih.defended import Defended
from jernih.pipeline import Pipeline
from jernih.validate import InputError
from tests.helpers import small_run

PLAN = CertifyPlan(0.1, samples=200, radii=(0.0, 0.05, 0.1, 9.0))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    config: RunConfig = small_run(tmp_path_factory.mktemp("certify"))
    made = Pipeline(config)
    made.model()
    return made


def test_certified_accuracy(pipeline: Pipeline) -> None:
    defended, test = pipeline.model(), pipeline.modify()["test"]
    found = certify(defended, test, PLAN)
    assert found.n == found.of == len(test)
    right = np.array([image.answer == image.label for image in found.images])
    radii = np.array([image.radius for image in found.images])
    assert found.accuracy.successes == right.sum()
    assert [rate.successes for rate in found.certified] == [
        (right & (radii >= radius)).sum() for radius in PLAN.radii
    ]
    assert found.certified[0].successes > found.certified[-1].successes == 0
    assert found.abstained.successes == sum(image.answer is None for image in found.images)
    assert found.largest is not None
    assert radii.max() <= found.largest + 1e-12
    assert found.models["purifier"]["name"] == defended.purifier.name
    assert len(draw_certified(found).axes) == 1


def test_radii_hold_against_noise_of_that_size(pipeline: Pipeline) -> None:
    """Spot check of the promise: the smoothed answer stands at points within the radius."""
    test = pipeline.modify()["test"]
    found = certify(pipeline.model(), test, dataclasses.replace(PLAN, samples=1000))
    number = max(range(found.n), key=lambda k: found.images[k].radius)
    image, radius = test[number][0], found.images[number].radius
    smoothing = jernih.certify.Smoothing(pipeline.model(), PLAN.sigma, samples=400, alpha=0.01)
    for seed in range(3):
        way = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
        moved = (image + 0.99 * radius * way / way.norm()).clamp(0, 1)
        again = smoothing.certify(moved[None], generator=torch.Generator().manual_seed(seed))
        classes = pipeline.model().classifier.classes
        assert int(again.classes) in (-1, classes.index(str(found.images[number].answer)))


def test_goes_on_and_stays_the_same(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defended, test = pipeline.model(), pipeline.modify()["test"]
    whole = certify(defended, test, PLAN)

    class Stopped(Exception):  # noqa: N818
        pass

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        certify(defended, test, PLAN, parts=tmp_path, key="k", progress=stop)
    assert len(list(tmp_path.iterdir())) == 2
    assert certify(defended, test, PLAN, parts=tmp_path, key="k") == whole
    few = certify(defended, test, dataclasses.replace(PLAN, limit=3))
    assert (few.n, few.of) == (3, len(test))
    assert all(image in whole.images for image in few.images)

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("all is known")

    monkeypatch.setattr(jernih.certify.Smoothing, "certify", refuse)
    assert certify(defended, test, PLAN, parts=tmp_path, key="k") == whole
    with pytest.raises(RuntimeError, match="all is known"):
        certify(defended, test, PLAN, parts=tmp_path, key="another")


def test_the_model_sees_noisy_images_cut_to_their_range(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[float] = []
    forward = Defended.forward

    def noting(self: Defended, images: Tensor) -> Tensor:
        ends.extend([float(images.min()), float(images.max())])
        return forward(self, images)

    monkeypatch.setattr(Defended, "forward", noting)
    certify(
        pipeline.model(), pipeline.modify()["test"], dataclasses.replace(PLAN, sigma=0.5, limit=1)
    )
    assert (min(ends), max(ends)) == (0, 1)


def test_pipeline_writes_the_record(pipeline: Pipeline) -> None:
    plan = dataclasses.replace(PLAN, limit=3)
    found, folder = pipeline.certify(plan)
    assert CertifiedAccuracy.load(folder / "certify.json") == found
    assert found.plan == plan
    assert (folder / "certify.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"radii": ()}, "radii"), ({"radii": (-1.0,)}, "radii"), ({"sigma": 0.0}, "sigma"),
     ({"limit": 0}, "limit")],
)  # fmt: skip
def test_bad_plans(pipeline: Pipeline, changes: dict[str, object], message: str) -> None:
    plan = dataclasses.replace(PLAN, **changes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        certify(pipeline.model(), pipeline.modify()["test"], plan)


def test_parts_want_a_key(pipeline: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="key"):
        certify(pipeline.model(), pipeline.modify()["test"], PLAN, parts=tmp_path)
