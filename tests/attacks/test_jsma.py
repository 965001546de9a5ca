"""JSMA against every pair, against other implementations, and on large images."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from jernih.attacks import JSMA
from jernih.attacks.jsma import Saliency, best_pairs
from jernih.randomness import generator
from jernih.validate import InputError
from tests.attacks.gradient_peers import of_art, of_torchattacks
from tests.attacks.known import Digits, linear_model, middling


def changed(images: Tensor, others: Tensor) -> Tensor:
    """How many values of each image differ."""
    return (images != others).flatten(1).sum(1)


@pytest.mark.parametrize("block", [2**22, 7])
@pytest.mark.parametrize("tied", [0.0, 0.9, -0.9])
def test_best_of_all_pairs(tied: float, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jernih.attacks.jsma.BLOCK", block)
    source = generator("pairs", str(tied))
    up, own = torch.randn(2, 40, 12, generator=source)
    down = tied * up + (1 - tied**2) ** 0.5 * own - 0.2
    up, down = up.mul(4).round() / 4, down.mul(4).round() / 4  # with ties
    free = torch.rand(up.shape, generator=source) < 0.7
    picks = best_pairs(up, down, free)
    none = 0
    for a, c, may, pick in zip(up, down, free, picks, strict=True):
        best = 0.0
        for i, j in itertools.combinations(may.nonzero().squeeze(1).tolist(), 2):
            first, second = float(a[i] + a[j]), float(c[i] + c[j])
            if first > 0 and second > 0:
                best = max(best, first * second)
        if best == 0:
            none += 1
            assert not bool(pick.any())
        else:
            assert int(pick.sum()) == 2
            assert bool(may[pick].all())
            assert float(a[pick].sum() * c[pick].sum()) == pytest.approx(best)
    assert 0 < none <= 30  # neither case is missing


def test_pairs_of_many_values() -> None:
    up, down = torch.randn(2, 1, 3 * 224 * 224, generator=generator("many"))
    pick = best_pairs(up, down, torch.ones_like(up, dtype=torch.bool))
    a, c = up[pick].sum(), down[pick].sum()
    first = int((up * down).argmax())
    partners = (up + up[0, first]) * (down + down[0, first])
    partners[0, first] = 0
    assert int(pick.sum()) == 2
    assert float(a * c) >= float(partners.max())


@pytest.mark.parametrize(("theta", "gamma"), [(1.0, 1.0), (0.2, 1.0), (-1.0, 0.3)])
def test_agrees_with_art(digits: Digits, theta: float, gamma: float) -> None:
    model, images, labels = digits.model, digits.images, digits.labels
    wanted = (labels + 1) % 10
    options = {"theta": theta, "gamma": gamma}
    theirs = of_art("SaliencyMapMethod", model, images, wanted, verbose=False, **options)
    ours = JSMA(targeted=True, saliency="target", **options)(model, images, wanted)  # type: ignore[arg-type]
    reached = model(theirs).argmax(1) == wanted
    # It stops once more than the share of values has changed, and keeps what did not succeed.
    within = reached & (changed(images, theirs) <= int(gamma * 64))
    assert int(within.sum()) > 40
    assert torch.equal(ours.success, within)
    same = (ours.images - theirs).abs().flatten(1).amax(1)[within] < 1e-6
    assert float(same.float().mean()) > 0.9


def test_agrees_with_torchattacks(digits: Digits) -> None:
    # Its own targets are the labels' successors; it changes no value twice, as θ = 1 allows none.
    model, images, labels = digits.model, digits.images[:30], digits.labels[:30]
    wanted = (labels + 1) % 10
    theirs = of_torchattacks("JSMA", model, images, labels, theta=1.0, gamma=1.0)
    ours = JSMA(targeted=True, saliency="product", gamma=1.0)(model, images, wanted)
    assert bool(ours.success.all())
    assert bool((model(theirs).argmax(1) == wanted).all())
    same = (ours.images - theirs).abs().flatten(1).amax(1) < 1e-6
    assert float(same.float().mean()) > 0.9


def test_probabilities_need_the_fewest_values(digits: Digits) -> None:
    model, images, wanted = digits.model, digits.images, (digits.labels + 1) % 10
    choices: tuple[Saliency, ...] = ("probability", "target", "product")
    counts = []
    for saliency in choices:
        result = JSMA(targeted=True, gamma=1.0, saliency=saliency)(model, images, wanted)
        assert bool(result.success.all())
        counts.append(float(changed(images, result.images).float().mean()))
    assert counts == sorted(counts)


@pytest.mark.parametrize("at_once", [1, 2, 5])
@pytest.mark.parametrize("theta", [1.0, 0.1, -0.3])
def test_changes_no_more_than_it_may(digits: Digits, at_once: int, theta: float) -> None:
    model, images, labels = digits.model, digits.images, digits.labels
    result = JSMA(theta=theta, gamma=0.1, at_once=at_once)(model, images, labels)
    count = changed(images, result.images)
    assert int(result.success.sum()) > 0
    assert int(count.max()) <= 6
    assert torch.equal(count > 0, result.success)
    delta = result.images - images
    assert bool((delta >= 0).all() if theta > 0 else (delta <= 0).all())


@pytest.mark.parametrize("saliency", ["probability", "target", "product"])
def test_linear_model_changes_the_largest_weights(saliency: Saliency) -> None:
    model, images = linear_model(2), middling()
    labels = model(images).argmax(1)
    result = JSMA(at_once=1, gamma=1.0, saliency=saliency)(model, images, labels)
    assert bool(result.success.all())
    layer = next(m for m in model.modules() if isinstance(m, nn.Linear))
    for image, made, label in zip(images, result.images, labels, strict=True):
        gain = (layer.weight[1 - label] - layer.weight[label]).view_as(image)
        moved = image != made
        assert float(gain[moved].min()) >= float(gain[~moved].max())
        assert bool((made[moved] == 1).all())


def test_two_classes(two_digits: Digits) -> None:
    model, images, labels = two_digits.model, two_digits.images, two_digits.labels
    results = [
        JSMA(gamma=1.0, saliency=saliency)(model, images, labels).success
        for saliency in ("probability", "target")
    ]
    assert float(results[0].float().mean()) > 0.9
    assert torch.equal(results[0], results[1])


def test_large_images() -> None:
    model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3 * 28**2, 3)).eval()
    model.requires_grad_(False)
    weight = torch.randn(3, 3 * 28**2, generator=generator("large"))
    next(m for m in model.modules() if isinstance(m, nn.Linear)).weight.data = weight
    images = torch.rand(2, 3, 224, 224, generator=generator("large images"))
    labels = model(images).argmax(1)
    result = JSMA(at_once=1000)(model, images, labels)
    assert bool(result.success.all())
    assert int(changed(images, result.images).max()) <= 0.145 * images[0].numel()


@pytest.mark.parametrize(
    "options",
    [
        {"theta": 0},
        {"theta": 2},
        {"gamma": 1.5},
        {"at_once": 0},
        {"saliency": "x"},
    ],
)
def test_refuses_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        JSMA(**options)  # type: ignore[arg-type]
