"""Harmless changes are as strong as they say, and the same for the same generator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from jernih.harmless import HARMLESS, format_change
from jernih.purifiers import JPEG
from jernih.randomness import generator
from jernih.validate import InputError

GREY = torch.full((4, 3, 32, 32), 0.5)


def changed(name: str, images: Tensor = GREY, seed: int = 0, **options: Any) -> Tensor:
    return HARMLESS.create(name, **options)(images, generator=generator(seed))


@pytest.mark.parametrize("name", HARMLESS.names())
class TestContract:
    def test_same_generator_same_images_in_range(self, name: str, images: Tensor) -> None:
        state = torch.get_rng_state()
        made = changed(name, images)
        assert made.shape == images.shape
        assert made.dtype is torch.float32
        assert 0 <= float(made.min()) <= float(made.max()) <= 1
        assert not torch.equal(made, images)
        assert torch.equal(made, changed(name, images))
        assert torch.equal(state, torch.get_rng_state())

    def test_can_be_made_again_from_its_description(self, name: str, images: Tensor) -> None:
        told = HARMLESS.create(name).describe()
        assert format_change(told).startswith(f"{name}, ")
        assert torch.equal(changed(told.pop("name"), images, **told), changed(name, images))

    def test_refuses_images_out_of_range(self, name: str, images: Tensor) -> None:
        with pytest.raises(InputError, match=r"values in \[0, 1\]"):
            changed(name, images * 3)


def test_noise_has_the_strength_that_it_says() -> None:
    made = changed("gaussian-noise", std=0.05) - GREY
    assert float(made.std()) == pytest.approx(0.05, rel=0.03)
    assert float(made.abs().max()) > 0.15  # nothing is cut at a bound
    flat = changed("uniform-noise", most=0.1) - GREY
    assert 0.099 < float(flat.abs().max()) <= 0.1 + 1e-6
    assert float(flat.std()) == pytest.approx(0.1 / 3**0.5, rel=0.03)
    assert not torch.equal(changed("gaussian-noise"), changed("gaussian-noise", seed=1))


def test_salt_and_pepper_turns_so_many_pixels_white_and_black() -> None:
    made = changed("salt-and-pepper", amount=0.2)
    assert float((made == 1).float().mean()) == pytest.approx(0.1, abs=0.02)
    assert float((made == 0).float().mean()) == pytest.approx(0.1, abs=0.02)


def test_brightness_is_relative_and_cut_at_white(images: Tensor) -> None:
    torch.testing.assert_close(changed("brightness", images, change=-0.1), images * 0.9)
    brighter = changed("brightness", images, change=0.3)
    torch.testing.assert_close(brighter, (images * 1.3).clamp_max(1))
    assert bool((brighter == 1).any())


def test_a_file_loses_what_the_purifier_of_that_quality_loses(images: Tensor) -> None:
    assert torch.equal(changed("jpeg", images, quality=30), JPEG(30)(images))


def test_blur_spreads_a_point_by_its_standard_deviation() -> None:
    point = torch.zeros(1, 3, 33, 33)
    point[..., 16, 16] = 1
    seen = changed("blur", point, sigma=2.0)[0, 0]
    away = (torch.arange(33) - 16.0) ** 2
    assert float(seen.sum()) == pytest.approx(1, abs=1e-4)
    assert float((seen.sum(0) * away).sum()) == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gaussian-noise", {"std": 0}, "std: expected a number above 0"),
        ("uniform-noise", {"most": 2}, r"most: expected a number in \[0, 1\]; got 2"),
        ("salt-and-pepper", {"amount": -0.1}, "amount"),
        ("blur", {"sigma": 0}, "sigma"),
        ("jpeg", {"quality": 0}, r"quality: expected a number in \[1, 100\]"),
        ("brightness", {"change": 0}, "change: expected a relative change other than 0"),
        ("brightness", {"factor": 2}, "one of 'change'; got 'factor'"),
        ("jpg", {}, "nearest: 'jpeg'"),
    ],
)
def test_refusals(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        HARMLESS.create(name, **options)
