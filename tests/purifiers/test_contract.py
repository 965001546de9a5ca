"""What every registered purifier has to hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from jernih.classifiers import save_classifier
from jernih.purifiers import (
    PURIFIERS,
    Purifier,
    SkipVAE,
    restore_purifier,
    save_purifier,
)
from jernih.randomness import generator, seeded
from jernih.validate import InputError
from tests.conftest import tiny_classifier

SMALL: dict[str, dict[str, object]] = {
    "conv-autoencoder": {"widths": (4, 8)},
    "denoising-autoencoder": {"widths": (4, 8)},
    "pca": {"patch": 8, "components": 16},
    "deep-autoencoder": {"widths": (8,) * 10},
    "ensemble": {
        "members": (
            {"name": "conv-autoencoder", "widths": (4, 8)},
            {"name": "unet", "widths": (8,), "blocks": (1,)},
        )
    },
    "unet": {"widths": (8, 16), "blocks": (1, 1)},
    "jernih-r": {"factor": 2, "widths": (8, 16)},
    "skip-vae": {"image_size": 32, "widths": (4, 8, 8), "latent": 8},
}
"""Options that make a purifier quick to test; without an entry the defaults are used."""


def small(name: str) -> Purifier:
    with seeded("purifier", name):
        return PURIFIERS.create(name, **SMALL.get(name, {})).eval()


@pytest.mark.parametrize("name", PURIFIERS.names())
class TestContract:
    def test_shape_dtype_and_range(self, name: str, images: Tensor) -> None:
        restored = small(name)(images).detach()
        assert restored.shape == images.shape
        assert restored.dtype is torch.float32
        assert 0 <= float(restored.min()) <= float(restored.max()) <= 1

    def test_deterministic_and_alone_in_its_batch(self, name: str, images: Tensor) -> None:
        purifier = small(name)
        state = torch.get_rng_state()
        whole = purifier(images)
        assert torch.equal(whole, purifier(images))
        torch.testing.assert_close(purifier(images[2:3]), whole[2:3])
        assert torch.equal(state, torch.get_rng_state())

    def test_gradients_pass_through(self, name: str, images: Tensor) -> None:
        inputs = images.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(small(name)(inputs).square().sum(), inputs)
        assert float(gradient.abs().sum()) > 0

    def test_saved_and_restored(self, name: str, tmp_path: Path, images: Tensor) -> None:
        purifier = small(name)
        restored = restore_purifier(save_purifier(purifier, tmp_path / "p.safetensors"))
        assert type(restored) is type(purifier)
        assert torch.equal(restored(images), purifier(images))
        assert restored.describe()["name"] == name
        assert not restored.training

    def test_learns(self, name: str, images: Tensor) -> None:
        purifier = small(name)
        if purifier.learns != "by gradient":
            assert list(purifier.parameters()) == []
            if purifier.learns == "in closed form":
                before = float((purifier(images) - images).square().mean())
                purifier.fit([images[:4], images[4:]])
                assert float((purifier(images) - images).square().mean()) < before
            return
        purifier.train()
        optimizer = torch.optim.Adam(purifier.parameters(), lr=1e-3)
        smooth = torch.nn.functional.avg_pool2d(images, 9, 1, 4)
        noisy = (smooth + 0.2 * torch.randn(smooth.shape, generator=generator(0))).clamp(0, 1)
        losses = []
        for step in range(80):
            optimizer.zero_grad()
            loss = purifier.loss(noisy, smooth, generator(step))
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(purifier.parameters(), 1.0)  # as in training
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.75 * losses[0]
        unused = [n for n, p in purifier.named_parameters() if p.grad is None]
        assert unused == []


def test_identity_changes_nothing(images: Tensor) -> None:
    assert torch.equal(small("identity")(images), images)


def test_wrong_sizes_are_named(images: Tensor) -> None:
    with pytest.raises(InputError, match="multiples of 4"):
        small("conv-autoencoder")(images[..., :30])
    with pytest.raises(InputError, match=r"shape \(N, 3, 32, 32\)"):
        small("skip-vae")(images[..., :28])
    with pytest.raises(InputError, match="image_size"):
        PURIFIERS.create("skip-vae", image_size=30)
    with pytest.raises(InputError, match="widths"):
        PURIFIERS.create("conv-autoencoder", widths=())


def test_skip_vae_has_the_published_size() -> None:
    with torch.device("meta"):
        purifier = PURIFIERS.create("skip-vae")
    assert sum(p.numel() for p in purifier.parameters()) == 154_748_003


def test_skip_vae_loss_follows_its_generator(images: Tensor) -> None:
    purifier = PURIFIERS.create("skip-vae", image_size=32, widths=(4, 8, 8), latent=8, beta=1.0)
    first, second, other = (purifier.loss(images, images, generator(s)) for s in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_skip_vae_divergence_against_torch(images: Tensor) -> None:
    purifier = SkipVAE(image_size=32, widths=(4, 8, 8), latent=8, beta=3.0)
    plain = PURIFIERS.create("skip-vae", image_size=32, widths=(4, 8, 8), latent=8)
    plain.load_state_dict(purifier.state_dict())
    _, _, mean, log_variance = purifier._encode(images)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    divergence = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    expected = 3.0 * divergence.sum(1).mean() / images[0].numel()
    difference = purifier.loss(images, images, generator(0)) - plain.loss(
        images, images, generator(0)
    )
    torch.testing.assert_close(difference, expected, rtol=1e-3, atol=1e-6)


@torch.no_grad()
def test_skip_vae_compressed_keeps_what_matters(images: Tensor) -> None:
    with seeded("compress"):
        whole = SkipVAE(image_size=32, widths=(4, 8, 8), latent=4).eval()
    many = torch.rand(40, 3, 32, 32, generator=generator("many"))
    same = whole.compressed(4, [many[:16], many[16:]])
    torch.testing.assert_close(same(images), whole(images), atol=1e-5, rtol=0)
    errors = [
        float((whole.compressed(k, [many])(many) - whole(many)).square().mean()) for k in (1, 2, 4)
    ]
    assert errors[0] > errors[1] > errors[2]
    small = whole.compressed(1, [many])
    assert (small.options["latent"], small.training) == (1, False)
    assert small.mean.weight.shape == (1, 8 * 8 * 8)
    for latent, given in ((0, many), (5, many), (4, many[:4])):
        with pytest.raises(InputError, match="latent"):
            whole.compressed(latent, [given])


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    save_classifier(tiny_classifier(), tmp_path / "c.safetensors")
    with pytest.raises(InputError, match="save_purifier wrote"):
        restore_purifier(tmp_path / "c.safetensors")


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_black_and_white_pixels_have_a_gradient(level: float) -> None:
    inputs = torch.full((1, 3, 8, 8), level, requires_grad=True)
    (gradient,) = torch.autograd.grad(small("identity")(inputs).sum(), inputs)
    assert torch.equal(gradient, torch.ones_like(inputs))
