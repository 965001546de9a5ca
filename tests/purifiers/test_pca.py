from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.decomposition
import torch
from torch import Tensor
from torch.nn import functional

from jernih.purifiers import PCA, restore_purifier, save_purifier
from jernih.randomness import generator
from jernih.validate import InputError


@pytest.fixture
def images() -> Tensor:
    """Images with structure, so that the leading components stand apart."""
    noise = torch.rand(12, 3, 36, 52, generator=generator("pca"))
    smooth = functional.avg_pool2d(noise, 5, 1)
    low, high = smooth.aminmax()
    return (smooth - low) / (high - low)


def cut(images: Tensor, patch: int) -> Any:
    """Patches as rows, in another order of the pixels than the purifier's."""
    n, c, h, w = images.shape
    grid = images.numpy().reshape(n, c, h // patch, patch, w // patch, patch)
    return grid.transpose(0, 2, 4, 3, 5, 1).reshape(-1, patch * patch * c)


def test_against_scikit_learn(images: Tensor) -> None:
    assert images.shape == (12, 3, 32, 48)
    purifier = PCA(patch=8, components=10)
    purifier.fit([images[:5], images[5:10], images[10:]])
    reference = sklearn.decomposition.PCA(10, svd_solver="full")
    other = torch.rand(3, 3, 32, 48, generator=generator("other"))
    reference.fit(cut(images, 8).astype(np.float64))
    for given in (images, other):
        expected = reference.inverse_transform(reference.transform(cut(given, 8)))
        restored = cut(purifier.restore(given), 8)
        np.testing.assert_allclose(restored, expected, atol=2e-6)
    spread = (purifier._patches(images) - purifier.mean) @ purifier.basis.T
    np.testing.assert_allclose(
        spread.flatten(0, 2).var(0).numpy(), reference.explained_variance_, rtol=1e-4
    )


def test_batches_do_not_matter(images: Tensor) -> None:
    whole, parts = PCA(patch=8, components=10), PCA(patch=8, components=10)
    whole.fit([images])
    parts.fit(image[None] for image in images)
    torch.testing.assert_close(parts.mean, whole.mean)
    torch.testing.assert_close(parts.restore(images), whole.restore(images), atol=1e-5, rtol=0)


def test_fitting_again_starts_afresh(images: Tensor) -> None:
    once, twice = PCA(patch=8, components=10), PCA(patch=8, components=10)
    twice.fit([1 - images.square()])
    for purifier in (once, twice):
        purifier.fit([images])
    assert torch.equal(once.basis, twice.basis)
    assert torch.equal(once.mean, twice.mean)


def test_projection(images: Tensor) -> None:
    fitted = PCA(patch=8, components=20)
    fitted.fit([images])
    for purifier in (fitted, PCA(patch=8, components=20)):
        torch.testing.assert_close(purifier.basis @ purifier.basis.T, torch.eye(20))
        restored = purifier.restore(images)
        torch.testing.assert_close(purifier.restore(restored), restored)
    with torch.no_grad():
        rest = (images - fitted.restore(images)).square().sum()
        slightly_off = (images - fitted.restore(images) * 1.01).square().sum()
    assert rest < slightly_off


@pytest.mark.parametrize("fitted", [False, True])
def test_all_components_change_nothing(images: Tensor, fitted: bool) -> None:
    purifier = PCA(patch=4, components=48)
    if fitted:
        purifier.fit([images])
    torch.testing.assert_close(purifier.restore(images), images, atol=1e-5, rtol=0)


def test_unfitted_smooths(images: Tensor) -> None:
    purifier = PCA(patch=8, components=3)
    expected = functional.interpolate(functional.avg_pool2d(images, 8), scale_factor=8)
    torch.testing.assert_close(purifier.restore(images), expected)


def test_any_size(images: Tensor) -> None:
    purifier = PCA(patch=16, components=40)
    purifier.fit([images[..., :-3]])
    assert purifier(images[:, :, :17, :33]).shape == (12, 3, 17, 33)
    assert purifier(images[:, :, :1, :1]).shape == (12, 3, 1, 1)
    # Only patches with padding differ from those of the whole image.
    torch.testing.assert_close(
        purifier(images[:, :, :17, :33])[..., :16, :32], purifier(images)[..., :16, :32]
    )


def test_what_was_learned_is_saved(images: Tensor, tmp_path: Path) -> None:
    purifier = PCA(patch=8, components=10)
    purifier.fit([images])
    restored = restore_purifier(save_purifier(purifier, tmp_path / "p.safetensors"))
    assert torch.equal(restored(images), purifier(images))


def test_gradient_is_the_projection(images: Tensor) -> None:
    purifier = PCA(patch=8, components=10)
    purifier.fit([images])
    inputs = images.clone().requires_grad_(True)
    towards = torch.rand(images.shape, generator=generator("towards"))
    (gradient,) = torch.autograd.grad((purifier.restore(inputs) * towards).sum(), inputs)
    expected = purifier.restore(towards) - purifier.restore(torch.zeros_like(towards))
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 0}, "patch"),
        ({"patch": 65}, "patch"),
        ({"patch": 2.5}, "whole"),
        ({"patch": 2, "components": 13}, r"components.*\[1, 12\]"),
        ({"components": 1.5}, "whole"),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PCA(**options)


def test_unfit_images(images: Tensor) -> None:
    with pytest.raises(InputError, match=r"\(N, 3, H, W\)"):
        PCA()(images[:, :1])
    with pytest.raises(InputError, match="at least 64 patches; got 6"):
        PCA().fit([images[:1]])
    with pytest.raises(InputError, match="got 0"):
        PCA().fit([])
