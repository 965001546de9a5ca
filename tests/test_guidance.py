"""Training a purifier by what the classifier sees, and against attacks through both."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure

from jernih.attacks import FGSM, PGD, Attack
from jernih.classifiers import Classifier
from jernih.config import Guidance, Training, Unit
from jernih.data.unlabelled import unlabelled_files, with_unlabelled
from jernih.pipeline import Pipeline
from jernih.purifiers import JernihR, UNet
from jernih.randomness import generator, seeded
from jernih.train import TrainingData, fit_classifier, fit_purifier
from jernih.train import purifier as purifier_training
from jernih.train.base import fit
from jernih.train.guidance import Guide
from jernih.validate import InputError
from tests.conftest import tiny_classifier
from tests.helpers import Edges, datasets, small_run, striped_manifest


@pytest.fixture
def shown() -> Tensor:
    return torch.rand(4, 3, 32, 32, generator=generator("guidance"))


def test_parts_of_the_loss(shown: Tensor) -> None:
    classifier = tiny_classifier().frozen()
    other = (shown + 0.1).clamp(0, 1)
    for settings in (Guidance(), Guidance(features=1.0), Guidance(pixel="charbonnier")):
        assert float(Guide(classifier, settings)(shown, shown)) == pytest.approx(0, abs=1e-6)
    pixels = Guide(classifier, Guidance(logits=0, pixel_weight=2.0))(other, shown)
    assert float(pixels) == pytest.approx(2 * float((other - shown).square().mean()))
    divergence = Guide(classifier, Guidance(pixel_weight=0))(other, shown)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=classifier(shown)),
        torch.distributions.Categorical(logits=classifier(other)),
    ).mean()
    assert float(divergence) == pytest.approx(float(expected), rel=1e-4)
    features = Guide(classifier, Guidance(pixel_weight=0, logits=0, features=1.0))(other, shown)
    assert float(features) > 0


def test_maps_of_the_classifier_are_weighed(shown: Tensor) -> None:
    with seeded(0):
        layers = [nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3), nn.Conv2d(5, 6, 3)]
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    classifier = Classifier(network, ["a", "b"]).eval().frozen()
    other = (shown + 0.1).clamp(0, 1)
    guide = Guide(classifier, Guidance(pixel_weight=0, logits=0, layers=2, layers_weight=3.0))
    kept: list[Tensor] = []
    for layer in guide.layers:
        layer.register_forward_hook(lambda _, __, made: kept.append(made.clone()))
    classifier(other)
    classifier(shown)
    ratios = [(kept[k] - kept[2 + k]).abs().mean() / kept[2 + k].abs().mean() for k in range(2)]
    expected = 3 * float(ratios[0] + ratios[1]) / 2
    assert float(guide(other, shown)) == pytest.approx(expected, rel=1e-5)
    assert float(guide(other, shown, guide.look(shown))) == pytest.approx(expected, rel=1e-5)
    assert float(guide(shown, shown)) == pytest.approx(0, abs=1e-6)
    with pytest.raises(InputError, match="at most"):
        Guide(classifier, Guidance(layers=100))


def test_structure_against_torchmetrics_own_class() -> None:
    source = generator("structure")
    clean = functional.avg_pool2d(torch.rand(4, 3, 70, 70, generator=source), 7, 1)
    noise = torch.randn(clean.shape, generator=source)
    guide = Guide(tiny_classifier().frozen(), Guidance(pixel="ms-ssim", pixel_weight=2, logits=0))
    losses = []
    for std in (0.1, 0.03, 0.01, 0):
        shown = (clean + std * noise).clamp(0, 1)
        alike = MultiScaleStructuralSimilarityIndexMeasure(
            data_range=1.0, betas=(0.0448 / 0.6305, 0.2856 / 0.6305, 0.3001 / 0.6305)
        )(shown, clean)
        expected = 2 * (0.84 * (1 - alike) + 0.16 * (shown - clean).abs().mean())
        losses.append(float(guide(shown, clean)))
        assert losses[-1] == pytest.approx(float(expected), abs=1e-5)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(0, abs=1e-5)
    near = (clean + 0.003 * noise).clamp(0, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as a training in mixed precision asks
        mixed = float(guide.pixels(near, clean))
    assert mixed == pytest.approx(float(guide.pixels(near, clean)), rel=1e-4)
    with pytest.raises(InputError, match="at least 44 px for ms-ssim"):
        guide(clean[..., :43], clean[..., :43])
    smallest = clean[..., :44, :44]
    shown = (smallest + 0.05).requires_grad_(True)
    guide(shown, smallest).backward()  # type: ignore[no-untyped-call]
    assert shown.grad is not None
    assert bool(shown.grad.isfinite().all())


def test_guides_what_pixels_do_not_show(shown: Tensor) -> None:
    """Descending the guide moves an image towards the clean prediction."""
    classifier = tiny_classifier(seed=2).frozen()
    attacked = FGSM(0.1)(classifier, shown, classifier(shown).argmax(1)).images
    guide = Guide(classifier, Guidance(pixel_weight=0.0))
    image = attacked.clone().requires_grad_(True)
    before = float(guide(image, shown).detach())
    (slope,) = torch.autograd.grad(guide(image, shown), image)
    after = guide((attacked - 0.01 * slope.sign()).clamp(0, 1), shown)
    assert before > float(after) >= 0


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    sets = datasets(striped_manifest(tmp_path / "images"))
    return TrainingData(sets["train"], sets["val"])


@pytest.mark.parametrize("labels", ["true", "predicted"])
def test_training_through_both(
    labels: Any, tmp_path: Path, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    with seeded(0):
        classifier = Classifier(Edges(), ["a", "b"]).eval()
    rough = Training(epochs=4, batch_size=4, lr=0.05)
    fit_classifier(classifier, data, rough, tmp_path / "classifier")
    attacked: list[tuple[type[nn.Module], tuple[float, ...]]] = []
    perturb = PGD.perturb

    def noting(
        self: PGD, model: nn.Module, images: Any, labels: Any, bounds: Any, **more: Any
    ) -> list[Tensor]:
        attacked.append((type(model), tuple(bounds)))
        assert not any(module.training for module in model.modules())
        return perturb(self, model, images, labels, bounds, **more)

    monkeypatch.setattr(PGD, "perturb", noting)
    with seeded(0):
        purifier = UNet(widths=(8,), blocks=(1,))
    guidance = Guidance(
        labels=labels,
        through=Unit.model_validate({"name": "pgd", "steps": 2}),
        through_share=1.0,
    )
    settings = Training(epochs=5, batch_size=4, lr=0.01, schedule="cosine")
    history = fit_purifier(
        purifier,
        classifier,
        FGSM(),
        [0.05, 0.1],
        data,
        settings,
        tmp_path / "run",
        guidance=guidance,
    )
    with history.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert all(0 <= float(row["val_through_accuracy"]) <= 1 for row in rows)
    events = EventAccumulator(str(tmp_path / "run/tensorboard"), {"images": 0}).Reload()
    (pictures,) = (events.Images(tag) for tag in events.Tags()["images"])
    assert [picture.step for picture in pictures] == [0, 1, 2, 3, 4]
    assert (pictures[0].width, pictures[0].height) == (4 * 32, 4 * 32)
    # A batch in training gets one bound, validation the largest.
    assert set(attacked) == {(nn.Sequential, (0.05,)), (nn.Sequential, (0.1,))}
    assert not purifier.training


def test_learns_to_recognise_before_it_meets_the_classifier(
    tmp_path: Path, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    with seeded(0):
        classifier = Classifier(Edges(), ["a", "b"]).eval()
        purifier = JernihR(factor=1, widths=(4, 8))
    before = [value.clone() for value in purifier.steer.parameters()]
    attacked: list[str] = []
    perturb = PGD.perturb

    def noting(self: PGD, model: nn.Module, *given: Any, **more: Any) -> list[Tensor]:
        attacked.append(type(model).__name__)
        assert not any(module.training for module in model.modules())
        assert not purifier.training
        return perturb(self, model, *given, **more)

    monkeypatch.setattr(PGD, "perturb", noting)
    guidance = Guidance(
        recognise=6,
        through=Unit.model_validate({"name": "pgd", "steps": 2}),
        through_share=1.0,
    )
    history = fit_purifier(
        purifier,
        classifier,
        FGSM(),
        [0.02],
        data,
        Training(epochs=7, batch_size=4, lr=0.01, patience=7),
        tmp_path / "run",
        guidance=guidance,
    )
    with history.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    # Validation goes through both in every epoch, training from the one after those.
    batches, looks = len(data.train) // 4, -(-len(data.val) // 4)
    an_epoch = ["Judge"] * batches + ["Sequential", "Judge"] * looks
    assert attacked == 6 * an_epoch + ["Sequential"] * batches + ["Sequential", "Judge"] * looks
    recognised = [float(row["val_recognised_accuracy"]) for row in rows]
    assert max(recognised) == 1
    assert any(
        not torch.equal(*both) for both in zip(before, purifier.steer.parameters(), strict=True)
    )
    with pytest.raises(InputError, match="without features"):
        fit_purifier(
            UNet(widths=(8,), blocks=(1,)), classifier, FGSM(), [0.02], data, Training(),
            tmp_path / "other", guidance=guidance,
        )  # fmt: skip
    with pytest.raises(ValidationError, match="set through"):
        Guidance(recognise=1)


def test_further_attacks_and_bounds(
    tmp_path: Path, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch is of one of the attacks, within the training's own bounds."""
    asked: list[tuple[str, tuple[float, ...]]] = []
    for unit in (FGSM, PGD):

        def noting(
            self: Any, model: Any, images: Any, labels: Any, bounds: Any, **more: Any
        ) -> list[Tensor]:
            asked.append((self.name, tuple(bounds)))
            made: list[Tensor] = Attack.perturb(self, model, images, labels, bounds, **more)
            return made

        monkeypatch.setattr(unit, "perturb", noting)
    with seeded(0):
        classifier = Classifier(Edges(), ["a", "b"]).eval()
        purifier = UNet(widths=(8,), blocks=(1,))
    guidance = Guidance(
        epsilons=(0.02, 0.2), attacks=(Unit.model_validate({"name": "pgd", "steps": 2}),)
    )
    fit_purifier(
        purifier,
        classifier,
        FGSM(),
        [0.05],
        data,
        Training(epochs=6, batch_size=4),
        tmp_path / "run",
        guidance=guidance,
    )
    assert {bounds for name, bounds in asked if name == "fgsm"} == {(0.02, 0.2)}
    assert {bounds for name, bounds in asked if name == "pgd"} == {(0.02,), (0.2,)}


def test_validation_looks_at_all_attacks(
    tmp_path: Path, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each validation image is attacked by each attack once, at its bound; losses are averaged."""
    shown: dict[str, list[tuple[Tensor, float]]] = {"fgsm": [], "pgd": []}
    for unit in (FGSM, PGD):

        def doing(
            self: Any, model: Any, images: Any, labels: Any, bounds: Any, **more: Any
        ) -> list[Tensor]:
            shown[self.name] += [(image, float(bounds[0])) for image in images]
            # One of them destroys the image, so that the mean tells which of them were looked at.
            return [torch.zeros_like(images) if self.name == "pgd" else images for _ in bounds]

        monkeypatch.setattr(unit, "perturb", doing)
    losses = {}
    for name, attacks in {"one": (), "two": (Unit.model_validate({"name": "pgd"}),)}.items():
        with seeded(0):
            classifier = Classifier(Edges(), ["a", "b"]).eval()
            purifier = UNet(widths=(8,), blocks=(1,))
        history = fit_purifier(
            purifier,
            classifier,
            FGSM(),
            [0.05],
            data,
            Training(epochs=1, batch_size=4, lr=1e-12),
            tmp_path / name,
            guidance=Guidance(epsilons=(0.02, 0.2), attacks=attacks, logits=0, pixel_weight=1),
        )
        with history.open(encoding="utf-8") as file:
            losses[name] = float(next(csv.DictReader(file))["val_loss"])
    images = torch.stack([data.val[k][0] for k in range(len(data.val))])
    for k, image in enumerate(images):
        bounds = [bound for one, bound in shown["pgd"] if torch.equal(one, image)]
        assert bounds == [(0.02, 0.2)[k % 2]]
    assert losses["one"] == pytest.approx(0, abs=1e-6)
    assert losses["two"] == pytest.approx(float(images.square().mean()) / 2, rel=1e-3)


def test_the_rate_rises_and_falls(tmp_path: Path, data: TrainingData) -> None:
    seen: list[float] = []

    class Noting(purifier_training._PurifierTask):
        def on_train_batch_end(self, *args: Any) -> None:
            seen.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    with seeded(0):
        classifier = Classifier(Edges(), ["a", "b"]).eval()
        purifier = UNet(widths=(8,), blocks=(1,))
    settings = Training(epochs=10, batch_size=4, lr=0.01, schedule="cosine", patience=10)
    task = Noting(purifier, classifier, FGSM(), [0.05], settings, 0, 0.25, None, None)
    fit(task, data, settings, tmp_path / "run", 0, "cpu", False)
    assert max(seen) == pytest.approx(0.01, rel=0.05)
    assert seen[-1] < 0.05 * max(seen)
    assert seen[1:] == sorted(seen[1:], reverse=True)


def test_settings_left_at_their_defaults_leave_no_trace() -> None:
    assert "schedule" not in Training().model_dump()
    assert not {"balanced", "recognise"} & set(Guidance().model_dump())
    assert Guidance(balanced=True).model_dump()["balanced"]
    assert Training(schedule="cosine").model_dump()["schedule"] == "cosine"


@pytest.mark.parametrize("balanced", [True, False])
def test_classes_are_drawn_alike_where_asked_for(
    balanced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"layers": 0, "balanced": balanced}
    pipeline = Pipeline(small_run(tmp_path, **{"model.guidance": settings}))
    drawn: list[Tensor | None] = []

    def note(*given: Any, **_: Any) -> None:
        drawn.extend(value.draw for value in given if isinstance(value, TrainingData))

    monkeypatch.setattr("jernih.pipeline.model.fit_purifier", note)
    # Three images in four of one class.
    first = sorted((tmp_path / "images" / "b").iterdir())
    for file in first[: len(first) * 2 // 3]:
        file.unlink()
    pipeline.purifiers()
    assert len(drawn) == 1
    if not balanced:
        assert drawn[0] is None
        return
    train = pipeline.modify()["train"]
    assert drawn[0] is not None
    shares = [float(drawn[0][train.labels == label].sum()) for label in (0, 1)]
    assert shares[0] == pytest.approx(shares[1])
    assert len(drawn[0][train.labels == 0]) > 2 * len(drawn[0][train.labels == 1])


def test_unlabelled_images_join_the_training(tmp_path: Path, data: TrainingData) -> None:
    extra = striped_manifest(tmp_path / "more")
    files = unlabelled_files(tmp_path / "more")
    assert len(files) == len(extra)
    train = with_unlabelled(data.train, files)
    assert len(train) == len(data.train) + len(files)
    image, _, index = train[len(data.train)]
    assert image.shape == data.train[0][0].shape
    assert index == len(data.train)
    with pytest.raises(InputError, match="unlabelled: expected an existing folder"):
        unlabelled_files(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="a folder with images"):
        unlabelled_files(tmp_path / "empty")
    with pytest.raises(ValidationError, match="set labels to predicted"):
        Guidance(unlabelled=str(tmp_path))
    with pytest.raises(ValidationError, match="no class to balance by"):
        Guidance(unlabelled=str(tmp_path), labels="predicted", balanced=True)
