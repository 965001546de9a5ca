"""SimBA: its directions are a basis, each is tried once, and it does what its peer does."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor, nn

from jernih.attacks import SimBA, distance
from jernih.attacks.simba import Basis, Order, _wave
from jernih.randomness import generator
from jernih.validate import InputError
from tests.attacks.gradient_peers import of_art
from tests.attacks.known import Digits, linear_model, middling
from tests.attacks.test_square import Blind


class Times(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, logits: Tensor) -> Tensor:
        return logits * self.by


def test_waves_are_those_of_scipy() -> None:
    waves = _wave(torch.arange(8), 8, "dct")
    expected = scipy.fft.idct(np.eye(8), norm="ortho", axis=0).T
    torch.testing.assert_close(waves, torch.tensor(expected, dtype=torch.float32))
    torch.testing.assert_close(waves @ waves.T, torch.eye(8), atol=1e-6, rtol=0)
    assert torch.equal(_wave(torch.arange(8), 8, "pixel"), torch.eye(8))


@pytest.mark.parametrize(("basis", "order"), [("pixel", "random"), ("dct", "strided")])
def test_beside_art_along_the_same_directions(
    digits: Digits, basis: Basis, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    evasion = pytest.importorskip("art.attacks.evasion")
    model, images, labels = digits.model, digits.images[:40], digits.labels[:40]
    softmax = nn.Sequential(model, nn.Softmax(1)).eval()
    attack = SimBA(step=0.2, basis=basis, order=order, frequencies=0.5, stride=4, queries=64)
    orders = attack._orders(images, generator("simba"))
    theirs = []
    for image, label, row in zip(images, labels, orders.numpy(), strict=True):
        monkeypatch.setattr("numpy.random.permutation", lambda _, row=row: row)
        monkeypatch.setattr(evasion.SimBA, "_block_order", lambda *_, row=row, **__: row)
        theirs.append(
            of_art(
                "SimBA", softmax, image[None], nn.functional.one_hot(label[None], 10),
                attack="px" if basis == "pixel" else "dct", max_iter=40, epsilon=0.2,
                freq_dim=4, stride=4, order="random", verbose=False,
            )
        )  # fmt: skip
    other = torch.cat(theirs)
    attack.queries = 1000
    attack._orders = lambda images, draws: orders[:, :40]  # type: ignore[method-assign]
    result = attack(model, images, labels)
    fooled = model(other).argmax(1) != labels
    assert 0.1 < float(fooled.float().mean()) < 0.95
    assert float((fooled == result.success).float().mean()) >= 0.9
    # ART asks about both ways and takes the better one, the paper's rule the first that helps.
    loop = torch.stack(
        [
            one_by_one(digits, row, attack, orders[row, :40], None, better=True)
            for row in range(len(images))
        ]
    )
    alike = (loop - other).flatten(1).abs().amax(1) < 1e-4
    assert float(alike.float().mean()) > 0.9
    both = fooled & result.success
    size = distance(images, other, "l2")[both].mean()
    torch.testing.assert_close(result.distances[both].mean(), size, rtol=0.05, atol=0)


def one_by_one(
    digits: Digits,
    row: int,
    attack: SimBA,
    order: Tensor,
    wanted: int | None,
    better: bool = False,
) -> Tensor:
    """The published loop on probabilities, in double precision, for one image and an order.

    With ``better`` the way of the two that helps more is taken rather than the first that helps.
    """
    model = copy.deepcopy(digits.model).double()
    image = digits.images[row].double()
    label = int(digits.labels[row]) if wanted is None else wanted
    high = 8 if attack.basis == "pixel" or attack.order != "random" else 4
    moved = image
    last: float | None = None
    for number in [None, *order.tolist()]:
        ways = [torch.zeros_like(image)]
        if number is not None:
            unit = np.zeros((8, 8))
            unit[number // high, number % high] = attack.step
            way = unit if attack.basis == "pixel" else scipy.fft.idctn(unit, norm="ortho")
            ways = [torch.tensor(way)[None], -torch.tensor(way)[None]]
        asked = []
        for step in ways:
            tried = (moved + step).clamp(0, 1)
            odds = model(tried[None]).softmax(1)[0]
            gain = float(odds[label] if wanted is not None else -odds[label])
            asked.append((gain, tried, int(odds.argmax())))
        helps = [one for one in asked if last is None or one[0] > last]
        if helps:
            last, moved, answer = max(helps, key=lambda one: one[0]) if better else helps[0]
            if (answer == label) == (wanted is not None):
                break
    return moved.float()


@pytest.mark.parametrize(
    ("basis", "order"),
    [("pixel", "random"), ("dct", "random"), ("dct", "strided"), ("dct", "diagonal")],
)
@pytest.mark.parametrize("targeted", [False, True])
def test_is_the_published_loop(digits: Digits, basis: Basis, order: Order, targeted: bool) -> None:
    images, labels = digits.images[:12], digits.labels[:12]
    wanted = (labels + 1) % 10
    attack = SimBA(
        step=0.15, basis=basis, order=order, frequencies=0.5, targeted=targeted, queries=1000
    )
    attack.queries = 40  # directions; questions are not short
    orders = attack._orders(images, generator("loop"))
    attack.queries = 1000
    attack._orders = lambda images, draws: orders  # type: ignore[method-assign]
    result = attack(digits.model, images, wanted if targeted else labels)
    expected = torch.stack(
        [
            one_by_one(digits, row, attack, orders[row], int(wanted[row]) if targeted else None)
            for row in range(len(images))
        ]
    )
    torch.testing.assert_close(result.images, expected, atol=1e-5, rtol=0)


def test_orders_of_the_cosines() -> None:
    images = torch.zeros(2, 3, 8, 8)

    def places(**options: Any) -> Tensor:
        attack = SimBA(queries=192, frequencies=0.25, **options)
        numbers = attack._orders(images, generator("orders"))[0]
        assert torch.equal(numbers.sort().values, torch.arange(192))
        return torch.stack([numbers % 64 // 8, numbers % 8], 1)

    strided = places(order="strided", stride=2).max(1).values // 2
    sides = torch.tensor([2, 4, 6, 8]) ** 2 * 3
    assert [int((strided == ring).sum()) for ring in range(4)] == sides.diff(
        prepend=torch.tensor([0])
    ).tolist()
    assert torch.equal(strided, strided.sort().values)
    assert not torch.equal(places(order="strided", stride=2)[:12].sum(1).sort().values, strided)
    diagonal = places(order="diagonal").sum(1)
    assert torch.equal(diagonal, diagonal.sort().values)
    # By default the block widens by a quarter of its side, and at least by one.
    assert torch.equal(places(order="strided"), places(order="strided", stride=1))
    slow = SimBA(queries=12, frequencies=0.25)._orders(images, generator("orders"))
    assert torch.equal(slow.sort().values, torch.arange(12).expand(2, 12))
    assert not torch.equal(slow[0], slow[1])


def test_linear_model_in_closed_form() -> None:
    model, images = linear_model(2), middling(8)
    labels = model(images).argmax(1)
    layer = next(m for m in model.modules() if isinstance(m, nn.Linear))
    towards = (layer.weight[1] - layer.weight[0]).sign() * torch.where(labels == 0, 1, -1)[:, None]
    # Every step helps one way: k of them, of a length too small to fool anybody.
    attack = SimBA(step=1e-4, basis="pixel", queries=200)
    attack._orders = lambda images, draws: torch.arange(48).expand(8, 48)  # type: ignore[method-assign]
    result = attack(model, images, labels)
    assert not bool(result.success.any())
    expected = images + 1e-4 * towards.view_as(images)
    torch.testing.assert_close(result.images, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        result.distances, torch.full((8,), 1e-4 * 48**0.5), rtol=1e-3, atol=0
    )


def test_moves_images_of_which_the_model_is_sure(digits: Digits) -> None:
    model = nn.Sequential(digits.model, Times(100)).eval()
    images, labels = digits.images, digits.labels
    assert float(model(images).softmax(1).max(1).values.median()) == 1
    sure = SimBA(basis="pixel", step=0.3)(model, images, labels, generator=generator(0))
    assert float(sure.success.float().mean()) > 0.9


def test_does_not_ask_about_steps_that_cannot_be_taken(digits: Digits) -> None:
    images, labels = digits.images[:6], digits.labels[:6]
    counting = Blind(digits.model).eval()
    attack = SimBA(0.2, step=0.15, basis="pixel", queries=400)  # room for one step
    result = attack(counting, images, labels, generator=generator(0))
    assert not bool(result.success.any())
    assert 6 * 4 < counting.asked < 6 * 60
    counting.asked = 0
    SimBA(0, basis="pixel")(counting, images, labels, generator=generator(0))
    assert counting.asked == 6 * 2


def test_no_longer_than_its_steps_and_asks_no_more_than_allowed(digits: Digits) -> None:
    asked = 0

    class Counting(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            nonlocal asked
            asked += len(images)
            logits: torch.Tensor = digits.model(images)
            return logits

    images, labels = digits.images[:1], digits.labels[:1]
    result = SimBA(step=0.01, basis="pixel", queries=40)(
        Counting().eval(), images, labels, generator=generator(1)
    )
    assert not bool(result.success.any())
    assert asked == 40 + 1  # and the recheck
    assert float(distance(images, result.images, "l2")[0]) <= 0.01 * 40**0.5
    bounded = SimBA(0.5, step=0.2, basis="pixel")(
        digits.model, images, labels, generator=generator(1)
    )
    assert float(bounded.distances.max()) <= 0.5 + 1e-6


def test_targeted(digits: Digits) -> None:
    targets = (digits.labels[:15] + 1) % 10
    attack = SimBA(targeted=True, step=0.5, basis="pixel")
    result = attack(digits.model, digits.images[:15], targets, generator=generator(2))
    assert float(result.success.float().mean()) > 0.5
    assert torch.equal(result.predictions == targets, result.success)


def test_refuses() -> None:
    with pytest.raises(InputError, match="basis"):
        SimBA(basis="wavelet")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="step"):
        SimBA(step=0)
    with pytest.raises(InputError, match="stride"):
        SimBA(stride=0)
    with pytest.raises(InputError, match="order"):
        SimBA(order="zigzag")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="order"):
        SimBA(order="strided", basis="pixel")
