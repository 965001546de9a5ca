"""Square: as strong as its peers, with the published schedule, and without gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from jernih.attacks import Square, distance, square
from jernih.attacks.draws import streams
from jernih.attacks.square import _peak
from jernih.randomness import generator
from jernih.types import Norm
from jernih.validate import InputError
from tests.attacks.gradient_peers import of_art, of_torchattacks
from tests.attacks.known import Digits, linear_model, middling
from tests.conftest import tiny_classifier


class _Blind(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise RuntimeError("somebody asked for a gradient")


class Blind(nn.Module):
    """A model without gradients that counts the images it is asked about."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.asked = 0

    def forward(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        logits: Tensor = _Blind.apply(self.model(images))
        return logits


def agree(model: nn.Module, labels: Tensor, ours: Tensor, theirs: Tensor) -> None:
    mine, other = (int((model(made).argmax(1) != labels).sum()) for made in (ours, theirs))
    interval = binomtest(other, len(labels)).proportion_ci(method="wilson")
    assert interval.low <= mine / len(labels) <= interval.high
    assert 0.2 < other / len(labels) < 1


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.12), ("l2", 1.2)])
@pytest.mark.parametrize("peer", ["torchattacks", "art"])
def test_beside_peers(
    digits: Digits, norm: Norm, eps: float, peer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images, labels = digits.model, digits.images, digits.labels
    attack = Square(eps, norm=norm, queries=150)
    published = attack(model, images, labels, generator=generator("square"))
    assert float(published.distances.max()) <= eps + 1e-5
    # No square of the peers reaches the last row or column, of which 8 × 8 images have many.
    monkeypatch.setattr(square, "_room", lambda size, side: max(size - side - 1, 0))
    ours = attack(model, images, labels, generator=generator("square")).images
    if peer == "torchattacks":
        name = "Linf" if norm == "linf" else "L2"
        theirs = of_torchattacks(
            "Square", model, images, labels, norm=name, eps=eps, n_queries=150, seed=0
        )
    else:
        np.random.seed(0)  # noqa: NPY002 - ART draws from the global numbers
        order = np.inf if norm == "linf" else 2
        theirs = of_art(
            "SquareAttack", model, images, labels, norm=order, eps=eps, max_iter=150,
            nb_restarts=1, verbose=False,
        )  # fmt: skip
    other = float((model(theirs).argmax(1) != labels).float().mean())
    assert float(published.success.float().mean()) >= other - 0.1
    if peer == "torchattacks" or norm == "linf":  # ART's L2 divides by the size left to a square
        agree(model, labels, ours, theirs)


def test_sees_no_gradient_and_asks_as_often_as_it_says(digits: Digits) -> None:
    blind = Blind(digits.model).eval()
    images, labels = digits.images[:4], digits.labels[:4]
    with pytest.raises(RuntimeError, match="asked for a gradient"):
        blind(images.clone().requires_grad_(True)).sum().backward()
    blind.asked = 0
    tiny = Square(1e-6, norm="l2", queries=30)
    result = tiny(blind, images, labels, generator=generator(0))
    assert not bool(result.success.any())
    # Clean, the start, 30 squares, and the recheck.
    assert blind.asked == 4 * (1 + 1 + 30 + 1)
    assert Square(0.3, queries=30)(blind, images, labels, generator=generator(0)).success.any()


def test_does_not_ask_about_squares_that_change_nothing(digits: Digits) -> None:
    blind = Blind(digits.model).eval()
    images, labels = digits.images[:4], digits.labels[:4]
    attack = Square(0.02, queries=200)
    result = attack(blind, images, labels, generator=generator(0))
    assert not bool(result.success.any())
    assert 4 * 50 < blind.asked < 4 * 170  # of 4 * 203: late squares are single pixels
    blind.asked = 0
    still = Square(0, queries=200)(blind, images, labels, generator=generator(0))
    assert torch.equal(still.images, images)
    assert blind.asked == 4 * 2


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_image_does_not_depend_on_how_many_others_there_are(digits: Digits, norm: Norm) -> None:
    images, labels = digits.images, digits.labels.clone()
    labels[12:30] = (labels[12:30] + 1) % 10  # these are fooled as they are
    attack = Square(0.1 if norm == "linf" else 0.8, norm=norm, queries=300)  # more than one supply
    whole = attack(digits.model, images, labels, generator=generator(0))
    few = attack(digits.model, images[:12], labels[:12], generator=generator(0))
    assert 0 < int(few.success.sum()) < 12
    torch.testing.assert_close(few.images, whole.images[:12], atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_image_does_not_depend_on_who_leaves_before_it(digits: Digits, norm: Norm) -> None:
    images, labels = digits.images[:24], digits.labels[:24]
    attack = Square(0.1 if norm == "linf" else 0.8, norm=norm, queries=120)
    whole = attack(digits.model, images, labels, generator=generator(0))
    assert 0 < int(whole.success[::2].sum()) < 12
    lost = torch.where(torch.arange(24) % 2 == 0, (labels + 1) % 10, labels)
    others = attack(digits.model, images, lost, generator=generator(0))
    assert torch.equal(others.images[::2], images[::2])
    torch.testing.assert_close(others.images[1::2], whole.images[1::2], atol=1e-5, rtol=0)


def test_squares_lie_anywhere_and_nowhere_else() -> None:
    images = nn.functional.interpolate(middling(64), (4, 7))
    search = square._LinfSearch(images, 0.1, streams(64, generator(0)))
    reached = torch.zeros(4, 7, dtype=torch.bool)
    for _ in range(20):
        before = search.best.clone()
        tried, rows = search.propose(4 / 28)
        changed = (tried != before[rows]).any(1)
        assert int(changed.sum((1, 2)).max()) <= 4
        assert bool((changed.any(2).sum(1) <= 2).all())
        assert bool((changed.any(1).sum(1) <= 2).all())
        away = (tried - images[rows]).abs()
        torch.testing.assert_close(away, torch.full_like(away, 0.1))
        reached |= changed.any(0)
    assert bool(reached.all())
    last = torch.full((64, 2), 1 - 2**-24)  # the largest that is drawn
    _, _, down, across = search._square(last, 3)
    assert (int(down.max()), int(across.max())) == (3, 6)


def test_squares_in_l2_keep_the_bound_spent() -> None:
    images = 0.4 + 0.2 * torch.rand(8, 3, 20, 20, generator=generator("mid"))
    search = square._L2Search(images, 0.5, streams(8, generator(1)))
    full = torch.full((8,), 0.5)
    torch.testing.assert_close(distance(images, search.best, "l2"), full)
    for share in (0.8, 0.2, 0.01):
        tried, rows = search.propose(share)
        torch.testing.assert_close(distance(images, tried, "l2"), full)
        assert torch.equal(rows, torch.arange(8))
        search.best = tried


def test_a_square_in_l2_against_masks() -> None:
    images = 0.4 + 0.2 * torch.rand(6, 3, 12, 12, generator=generator("masks"))
    search = square._L2Search(images, 0.5, streams(6, generator(2)))
    search.best = images + 0.9 * (search.best - images)  # some of the bound is left
    delta = (search.best - images).double()
    made, _ = search.propose(25 / 144)
    drawn, tile = search._stock[:, 0], square._tile(5).double()
    for row in range(6):
        first, second = torch.zeros(12, 12).bool(), torch.zeros(12, 12).bool()
        for mask, (down, across) in zip((first, second), drawn[row, :4].view(2, 2), strict=True):
            top, left = int(down * 8), int(across * 8)
            mask[top : top + 5, left : left + 5] = True
        expected = delta[row].clone()
        spare = 0.5**2 - float(delta[row].norm()) ** 2
        for channel in range(3):
            before = delta[row, channel]
            available = (float(before[first | second].norm()) ** 2 + spare / 3) ** 0.5
            sign = -1 if drawn[row, 5 + channel] < 0.5 else 1
            new = sign * (tile if drawn[row, 4] < 0.5 else tile.T).flatten()
            new = new + before[first] / before[first].norm()
            expected[channel][second] = 0
            expected[channel][first] = new / new.norm() * available
        expected *= 0.5 / expected.norm()
        torch.testing.assert_close((made[row] - images[row]).double(), expected, atol=1e-5, rtol=0)


def test_the_published_schedule() -> None:
    attack = Square(queries=10_000, share=0.8)
    expected = {0: 1, 10: 1, 11: 2, 50: 2, 51: 4, 201: 8, 501: 16, 1001: 32, 2001: 64}
    expected |= {4001: 128, 6001: 256, 8000: 256, 8001: 512, 9999: 512}
    for query, divisor in expected.items():
        assert attack.portion(query) == pytest.approx(0.8 / divisor)
    assert Square(queries=5000).portion(26) == pytest.approx(0.2)  # as 52 of 10,000


def test_peak_against_rings_counted_by_hand() -> None:
    peak = _peak(3, 3)
    raw = torch.full((3, 3), 0.25)
    raw[1, 1] = 1.25
    torch.testing.assert_close(peak, raw / raw.norm())
    assert float(_peak(4, 7).norm()) == pytest.approx(1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_reaches_the_surface_of_a_linear_model(norm: Norm) -> None:
    model, images = linear_model(), middling(4)
    labels = model(images).argmax(1)
    eps = 0.1 if norm == "linf" else 0.6
    result = Square(eps, norm=norm, queries=400)(model, images, labels, generator=generator(1))
    assert bool(result.success.all())
    large = Square(eps / 20, norm=norm, queries=50)(model, images, labels, generator=generator(1))
    still = ~large.success
    torch.testing.assert_close(
        distance(images, large.images, norm)[still], torch.full((int(still.sum()),), eps / 20)
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_targeted(digits: Digits, norm: Norm) -> None:
    targets = (digits.labels[:20] + 1) % 10
    attack = Square(0.5 if norm == "linf" else 4.0, norm=norm, targeted=True, queries=400)
    result = attack(digits.model, digits.images[:20], targets, generator=generator(2))
    assert float(result.success.float().mean()) > 0.5
    assert torch.equal(result.predictions == targets, result.success)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_wrong_images_stay_and_odd_shapes_work(norm: Norm) -> None:
    model = tiny_classifier(outputs=1)
    images = torch.rand(3, 3, 32, 7, generator=generator("odd"))
    labels = model(images).argmax(1)
    labels[0] = 1 - labels[0]
    result = Square(0.1, norm=norm, queries=40)(model, images, labels, generator=generator(3))
    assert torch.equal(result.images[0], images[0])
    assert not torch.equal(result.images[1:], images[1:])


def test_refuses() -> None:
    with pytest.raises(InputError, match="norm"):
        Square(norm="l1")
    with pytest.raises(InputError, match="queries"):
        Square(queries=0)
    with pytest.raises(InputError, match="share"):
        Square(share=1.5)
