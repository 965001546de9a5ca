"""PGD against what is known of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from jernih.attacks import FGSM, PGD
from jernih.classifiers import Classifier
from jernih.randomness import generator
from jernih.validate import InputError
from tests.conftest import tiny_classifier


@pytest.fixture
def fragile() -> Classifier:
    """A classifier between two of its classes."""
    return tiny_classifier(seed=2)


def linear_model() -> tuple[nn.Module, Tensor]:
    """Two classes apart by w · x."""
    weight = torch.linspace(-1, 1, 12).add(0.05)
    layer = nn.Linear(12, 2, bias=False)
    layer.weight.data = torch.stack([torch.zeros(12), weight])
    return nn.Sequential(nn.Flatten(), layer).eval(), weight.view(3, 2, 2)


@pytest.mark.parametrize("random_start", [False, True])
def test_linear_model_ends_in_the_known_corner(random_start: bool) -> None:
    model, weight = linear_model()
    images = torch.full((2, 3, 2, 2), 0.5)
    attack = PGD(0.1, random_start=random_start, stop_early=False)
    result = attack(model, images, torch.tensor([0, 1]), generator=generator(0))
    expected = torch.stack([0.5 + 0.1 * weight.sign(), 0.5 - 0.1 * weight.sign()])
    torch.testing.assert_close(result.images, expected)


def test_against_a_plain_loop(classifier: Classifier, images: Tensor, labels: Tensor) -> None:
    eps, alpha, steps = 0.03, 0.007, 6
    attack = PGD(eps, steps=steps, step_size=alpha / eps, random_start=False, stop_early=False)
    result = attack(classifier, images, labels)
    for number in range(len(images)):
        image, label = images[number : number + 1], labels[number : number + 1]
        moved = image.clone()
        for _ in range(steps):
            moved = moved.detach().requires_grad_(True)
            nn.functional.cross_entropy(classifier(moved), label).backward()  # type: ignore[no-untyped-call]
            assert moved.grad is not None
            moved = moved.detach() + alpha * moved.grad.sign()
            moved = torch.max(torch.min(moved, image + eps), image - eps).clamp(0, 1)
        torch.testing.assert_close(result.images[number : number + 1], moved, atol=1e-6, rtol=0)
    classifier.zero_grad()


def test_one_full_step_is_fgsm(classifier: Classifier, images: Tensor, labels: Tensor) -> None:
    attack = PGD(0.02, steps=1, step_size=1.0, random_start=False, stop_early=False)
    fgsm = FGSM(0.02)(classifier, images, labels).images
    torch.testing.assert_close(attack(classifier, images, labels).images, fgsm)


@torch.no_grad()
def test_loss_rises_beyond_that_of_one_step(
    classifier: Classifier, images: Tensor, labels: Tensor
) -> None:
    loss = nn.functional.cross_entropy
    one = FGSM(0.05)(classifier, images, labels).images
    attack = PGD(0.05, steps=20, stop_early=False)
    many = attack(classifier, images, labels, generator=generator(0)).images
    assert float(loss(classifier(many), labels)) > float(loss(classifier(one), labels))


def test_stopping_early_costs_no_success_and_spares_work(
    fragile: Classifier, images: Tensor
) -> None:
    labels = fragile(images).argmax(1)
    success, work = {}, {}
    for stop in (False, True):
        seen: list[int] = []
        handle = fragile.register_forward_hook(
            lambda _, inputs, __, seen=seen: seen.append(len(inputs[0]))
        )
        attack = PGD(0.1, steps=10, random_start=False, stop_early=stop)
        success[stop] = attack(fragile, images, labels).success
        handle.remove()
        work[stop] = sum(seen)
    assert bool(success[True].any())
    assert bool((success[True] | ~success[False]).all())
    assert work[True] < work[False]


def test_images_misclassified_from_the_start_stay(classifier: Classifier, images: Tensor) -> None:
    labels = (classifier(images).argmax(1) + 1) % 3
    result = PGD(0.1, random_start=False)(classifier, images, labels)
    assert torch.equal(result.images, images)
    assert bool(result.success.all())


def test_restarts_go_on_with_the_unfooled() -> None:
    model, _ = linear_model()
    images, labels = torch.full((24, 3, 2, 2), 0.5), torch.ones(24, dtype=torch.int64)
    options = {"steps": 1, "step_size": 0.1}  # so small that the start decides
    single = PGD(0.2, **options)(model, images, labels, generator=generator(3))  # type: ignore[arg-type]
    several = PGD(0.2, restarts=5, **options)(model, images, labels, generator=generator(3))  # type: ignore[arg-type]
    kept = single.success
    assert 0 < int(kept.sum()) < int(several.success.sum())
    assert bool((several.success | ~kept).all())
    assert torch.equal(several.images[kept], single.images[kept])


def test_targeted(fragile: Classifier, images: Tensor) -> None:
    wanted = fragile(images).topk(2).indices[:, 1]
    result = PGD(0.3, targeted=True)(fragile, images, wanted, generator=generator(0))
    assert torch.equal(result.success, fragile(result.images).argmax(1) == wanted)
    assert bool(result.success.any())


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"steps": 2.0}, {"restarts": 0}, {"step_size": 0}, {"step_size": -1}]
)
def test_refuses_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        PGD(0.1, **options)  # type: ignore[arg-type]
