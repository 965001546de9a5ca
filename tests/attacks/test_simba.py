"""SimBA: its directions are a basis, each is tried once, and it does what its peer does."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import torch
from torch import nn

from jernih.attacks import SimBA, distance
from jernih.attacks.simba import _wave
from jernih.randomness import generator
from jernih.validate import InputError
from tests.attacks.gradient_peers import of_art
from tests.attacks.known import Digits


def test_waves_are_those_of_scipy() -> None:
    waves = _wave(torch.arange(8), 8, "dct")
    expected = scipy.fft.idct(np.eye(8), norm="ortho", axis=0).T
    torch.testing.assert_close(waves, torch.tensor(expected, dtype=torch.float32))
    torch.testing.assert_close(waves @ waves.T, torch.eye(8), atol=1e-6, rtol=0)
    assert torch.equal(_wave(torch.arange(8), 8, "pixel"), torch.eye(8))


@pytest.mark.parametrize("basis", ["pixel", "dct"])
def test_beside_art(digits: Digits, basis: str) -> None:
    images, labels = digits.images[:20], digits.labels[:20]
    softmax = nn.Sequential(digits.model, nn.Softmax(1)).eval()
    np.random.seed(0)  # noqa: NPY002 - ART draws from the global numbers
    alone = [
        of_art(
            "SimBA",
            softmax,
            images[row : row + 1],
            nn.functional.one_hot(labels[row : row + 1], 10),
            attack="px" if basis == "pixel" else "dct",
            max_iter=60,
            epsilon=0.3,
            freq_dim=4,
            stride=4,
            order="random",
            verbose=False,
        )
        for row in range(len(images))
    ]
    theirs = float((digits.model(torch.cat(alone)).argmax(1) != labels).float().mean())
    attack = SimBA(step=0.3, basis=basis, frequencies=0.5, queries=121)  # type: ignore[arg-type]
    ours = attack(digits.model, images, labels, generator=generator("simba"))
    assert abs(float(ours.success.float().mean()) - theirs) <= 0.25
    assert float(ours.success.float().mean()) > 0.1


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
    assert 40 <= asked <= 42  # and the recheck
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
