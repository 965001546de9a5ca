"""PGD against what is known of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jernih.attacks import FGSM, PGD
from jernih.classifiers import Classifier
from jernih.randomness import generator
from jernih.types import Norm
from jernih.validate import InputError
from tests.attacks.gradient_peers import of_art, of_foolbox, of_torchattacks
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
    "options",
    [
        {"steps": 0},
        {"steps": 2.0},
        {"restarts": 0},
        {"step_size": 0},
        {"step_size": -1},
        {"norm": "l3"},
        {"sparsity": 1.1},
    ],
)
def test_refuses_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        PGD(0.1, **options)  # type: ignore[arg-type]


def test_l2_on_a_linear_model_goes_along_the_gradient() -> None:
    model, weight = linear_model()
    images, labels = torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])
    unit = weight / weight.norm()
    expected = torch.stack([0.5 + 0.3 * unit, 0.5 - 0.3 * unit])
    # From a random start each step brings the perturbation nearer to the gradient's line.
    for random_start, tolerance in ((False, 1e-6), (True, 1e-5)):
        attack = PGD(0.3, norm="l2", random_start=random_start, step_size=0.5, stop_early=False)
        result = attack(model, images, labels, generator=generator(0))
        torch.testing.assert_close(result.images, expected, atol=tolerance, rtol=0)
        torch.testing.assert_close(result.distances, torch.full((2,), 0.3))
    towards = PGD(0.3, norm="l2", random_start=False, targeted=True, stop_early=False)
    torch.testing.assert_close(towards(model, images, labels).images, expected.flip(0))


def test_l1_on_a_linear_model_fills_pixel_after_pixel() -> None:
    model, weight = linear_model()
    images, labels = torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])
    # The best point: the heaviest pixels go to the end of the range until the bound is spent.
    order = weight.flatten().abs().argsort(descending=True)
    moves = torch.zeros(12)
    moves[order[:3]] = torch.tensor([0.5, 0.5, 0.25]) * weight.flatten()[order[:3]].sign()
    expected = torch.stack([0.5 + moves, 0.5 - moves]).view_as(images)
    attack = PGD(
        1.25, norm="l1", sparsity=1, steps=20, step_size=1 / 20, random_start=False,
        stop_early=False,
    )  # fmt: skip
    result = attack(model, images, labels)
    torch.testing.assert_close(result.images, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(result.distances, torch.full((2,), 1.25))


def test_l1_steps_along_the_largest_values() -> None:
    model, weight = linear_model()
    images = torch.full((1, 3, 2, 2), 0.5)
    attack = PGD(0.3, norm="l1", sparsity=0.7, random_start=False, stop_early=False)
    moved = attack(model, images, torch.tensor([0])).images[0] - 0.5
    largest = weight.abs() >= weight.abs().flatten().topk(4).values[-1]
    torch.testing.assert_close(moved, torch.where(largest, 0.3 / 4 * weight.sign(), 0.0))


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.99, 1.0])
def test_l1_direction_by_quantile(sparsity: float) -> None:
    gradient = torch.randn(4, 3, 5, 5, generator=generator("direction"))
    gradient[2] = 0
    inputs = torch.rand(4, 3, 5, 5, generator=generator("inputs")).mul(3).sub(1).clamp(0, 1)
    found = PGD(norm="l1", sparsity=sparsity)._direction(gradient, inputs).flatten(1).numpy()
    for row, slopes, pixels in zip(
        found, gradient.flatten(1).numpy(), inputs.flatten(1).numpy(), strict=True
    ):
        free = [
            g if (p > 0 or g > 0) and (p < 1 or g < 0) else 0.0
            for g, p in zip(slopes, pixels, strict=True)
        ]
        cut = np.quantile(np.abs(free), sparsity)
        signs = np.where(np.abs(free) >= cut, np.sign(free), 0)
        np.testing.assert_allclose(row, signs / max(np.abs(signs).sum(), 1), atol=1e-7)


def test_l2_direction_survives_tiny_gradients() -> None:
    gradient = torch.randn(2, 3, 4, 4, generator=generator("tiny"))
    inputs = torch.full_like(gradient, 0.5)
    attack = PGD(norm="l2")
    unit = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(attack._direction(gradient * 1e-30, inputs), unit)
    assert torch.equal(attack._direction(gradient * 0, inputs), gradient * 0)


@pytest.mark.parametrize(("norm", "eps"), [("l2", 5.0), ("l1", 200.0)])
def test_other_norms_hold_their_bound(
    norm: Norm, eps: float, fragile: Classifier, images: Tensor
) -> None:
    images[0] = images[0].round()
    labels = fragile(images).argmax(1)
    attack = PGD(eps, norm=norm, restarts=2, steps=10)
    result = attack(fragile, images, labels, generator=generator(0))
    assert result.norm == norm
    assert float(result.distances.max()) <= eps * (1 + 1e-5)
    assert 0 <= float(result.images.min()) <= float(result.images.max()) <= 1
    assert bool(result.success.any())
    again = attack(fragile, images, labels, generator=generator(0))
    assert torch.equal(again.images, result.images)
    first_run = PGD(eps, norm=norm, steps=10)(fragile, images, labels, generator=generator(0))
    alone = PGD(eps, norm=norm, steps=10)(fragile, images[:3], labels[:3], generator=generator(0))
    torch.testing.assert_close(alone.images, first_run.images[:3], atol=1e-5, rtol=0)


def test_bounds_by_norm_where_none_is_given() -> None:
    assert PGD().options["eps"] == "8/255"
    assert PGD(norm="l2").eps == PGD(norm="l2").describe()["eps"] == 0.5
    assert PGD(norm="l1").eps == 12
    assert PGD(3, norm="l2").describe()["norm"] == "l2"
    with pytest.raises(InputError, match=r"eps: expected a number in \[0, 1\]"):
        PGD(3)


def ours(norm: Norm, eps: float, alpha: float, sparsity: float = 0.99) -> PGD:
    return PGD(
        eps, norm=norm, steps=8, step_size=alpha / eps, random_start=False, stop_early=False,
        sparsity=sparsity,
    )  # fmt: skip


def test_against_foolbox(classifier: Classifier, images: Tensor, labels: Tensor) -> None:
    settings: list[tuple[Norm, float, float, str]] = [
        ("linf", 0.03, 0.007, "LinfProjectedGradientDescentAttack"),
        ("l2", 0.8, 0.15, "L2ProjectedGradientDescentAttack"),
    ]
    for norm, eps, alpha, name in settings:
        made = of_foolbox(
            name, classifier, images, labels, eps, abs_stepsize=alpha, steps=8, random_start=False
        )
        found = ours(norm, eps, alpha)(classifier, images, labels).images
        torch.testing.assert_close(found, made, atol=1e-6, rtol=0)


def test_sparse_steps_against_foolbox(classifier: Classifier, images: Tensor) -> None:
    images[0] = images[0].round()  # the direction looks at the ends of the range
    labels = classifier(images).argmax(1)
    # One image at a time and within the ball: the projection of foolbox 3.3.4 counts one value too
    # many, and stretches what is inside when another image of the batch is outside.
    found = ours("l1", 12.0, 1.4)(classifier, images, labels).images
    for k in range(len(images)):
        image, label = images[k : k + 1], labels[k : k + 1]
        made = of_foolbox(
            "SparseL1DescentAttack", classifier, image, label, 12.0, abs_stepsize=1.4, steps=8
        )
        torch.testing.assert_close(found[k : k + 1], made, atol=1e-6, rtol=0)


def test_against_torchattacks(classifier: Classifier, images: Tensor, labels: Tensor) -> None:
    made = of_torchattacks(
        "PGD", classifier, images, labels, eps=0.03, alpha=0.007, steps=8, random_start=False
    )
    found = ours("linf", 0.03, 0.007)(classifier, images, labels).images
    torch.testing.assert_close(found, made, atol=1e-6, rtol=0)
    made = of_torchattacks(
        "PGDL2", classifier, images, labels, eps=0.8, alpha=0.15, steps=8, random_start=False
    )
    found = ours("l2", 0.8, 0.15)(classifier, images, labels).images
    torch.testing.assert_close(found, made, atol=1e-6, rtol=0)


def test_against_art(classifier: Classifier, images: Tensor, labels: Tensor) -> None:
    images = images / 2 + 0.25  # away from the ends, where ART clips before it projects
    settings: list[tuple[Norm, float, float, float]] = [
        ("linf", float("inf"), 0.03, 0.007),
        ("l2", 2, 0.8, 0.15),
        ("l1", 1, 0.2, 0.02),
    ]
    for norm, order, eps, alpha in settings:
        made = of_art(
            "ProjectedGradientDescentPyTorch", classifier, images, labels,
            norm=order, eps=eps, eps_step=alpha, max_iter=8, verbose=False,
        )  # fmt: skip
        found = ours(norm, eps, alpha, sparsity=1.0)(classifier, images, labels).images
        torch.testing.assert_close(found, made, atol=1e-6, rtol=0)
