from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from jernih.purifiers import DenoisingAutoencoder
from jernih.randomness import generator, seeded
from jernih.validate import InputError


def purifier(sigma: float = 0.1) -> DenoisingAutoencoder:
    with seeded(0):
        return DenoisingAutoencoder(widths=(4, 8), sigma=sigma)


def test_attacked_images_play_no_part(images: Tensor) -> None:
    model = purifier()
    assert model.trains_on == "clean"
    losses = [model.loss(seen, images, generator(0)) for seen in (images, 1 - images)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], model.loss(images, images, generator(1)))


def test_the_noise_has_its_sigma_and_stays_in_range(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = purifier(sigma=0.2)
    seen: list[Tensor] = []
    restore = model.restore

    def watched(noisy: Tensor) -> Tensor:
        seen.append(noisy)
        return restore(noisy)

    monkeypatch.setattr(model, "restore", watched)
    grey = torch.full_like(images, 0.5)
    loss = model.loss(images, grey, generator(0))
    # Clamping N(0, 0.2²) to ±2.5 sigma leaves this share of the standard deviation.
    density = math.exp(-(2.5**2) / 2) / math.sqrt(2 * math.pi)
    tail = 0.5 * math.erfc(2.5 / math.sqrt(2))
    share = math.sqrt(1 - 2 * tail - 5 * density + 2 * 2.5**2 * tail)
    assert float(seen[0].std()) == pytest.approx(0.2 * share, rel=0.02)
    assert float(seen[0].mean()) == pytest.approx(0.5, abs=0.01)
    assert 0 == float(seen[0].min()) < float(seen[0].max()) == 1
    torch.testing.assert_close(loss, (restore(seen[0]) - grey).square().mean())


def test_without_noise_it_is_an_autoencoder(images: Tensor) -> None:
    model = purifier(sigma=0)
    expected = (model.restore(images) - images).square().mean()
    torch.testing.assert_close(model.loss(images, images), expected)


def test_options(images: Tensor) -> None:
    with pytest.raises(InputError, match="sigma"):
        DenoisingAutoencoder(sigma=-0.1)
    with pytest.raises(InputError, match="widths"):
        DenoisingAutoencoder(widths=())
    with pytest.raises(InputError, match="multiples of 4"):
        purifier()(images[..., :30])
