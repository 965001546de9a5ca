from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional

from jernih.data.images import read_image, write_png
from jernih.data.manifest import Manifest, Record
from jernih.data.modify import (
    Augment,
    Crops,
    EpochSampler,
    ImageDataset,
    Prepare,
    augmentation_figure,
)
from jernih.randomness import generator
from jernih.validate import InputError

NO_CHANGE: dict[str, Any] = {"rotation": 0, "flip": 0, "zoom": (1.0, 1.0), "brightness": 0}


def noise(height: int = 24, width: int = 40) -> Tensor:
    return torch.rand(3, height, width, generator=generator("modify"))


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize(("height", "width"), [(24, 40), (40, 24), (16, 16), (5, 90), (200, 180)])
def test_every_fit_gives_the_square(fit: Any, height: int, width: int) -> None:
    image = Prepare(16, fit)(noise(height, width))
    assert image.shape == (3, 16, 16)
    assert image.dtype is torch.float32
    assert 0 <= float(image.min()) < float(image.max()) <= 1


def test_stretch_is_torchvisions_resize() -> None:
    image = noise()
    expected = functional.resize(image, [16, 16], antialias=True).clamp(0, 1)
    assert torch.equal(Prepare(16, "stretch")(image), expected)


def test_stretch_agrees_with_pillow() -> None:
    pixels = (noise(60, 90)[0] * 255).byte().numpy()
    pillow = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BILINEAR))
    ours = Prepare(16)(torch.from_numpy(pixels).float().expand(3, -1, -1) / 255)[0] * 255
    assert np.abs(ours.numpy() - pillow).max() < 1


def test_an_image_of_the_right_size_is_left_alone() -> None:
    image = noise(16, 16)
    assert torch.equal(Prepare(16, "stretch")(image), image)
    assert torch.equal(Prepare(16, "pad")(image), image)


def test_crop_takes_the_centre() -> None:
    # Short side 32 = 28 · 256/224, so that nothing is rescaled: 28 of 32 and of 64 pixels are left.
    image = noise(32, 64)
    assert torch.equal(Prepare(28, "crop")(image), image[:, 2:30, 18:46])


def test_crop_brings_the_short_side_to_256_of_224() -> None:
    image = noise(96, 48)
    resized = functional.resize(image, [64, 32], antialias=True)
    expected = resized[:, 18:46, 2:30].clamp(0, 1)
    torch.testing.assert_close(Prepare(28, "crop")(image), expected)


def test_pad_keeps_the_proportions_and_fills_with_black() -> None:
    image = Prepare(16, "pad")(torch.ones(3, 8, 32))
    assert torch.equal(image[:, 6:10], torch.ones(3, 4, 16))
    assert image[:, :6].sum() == image[:, 10:].sum() == 0


def test_prepare_refuses_what_it_does_not_know() -> None:
    with pytest.raises(InputError, match="nearest: 'stretch'"):
        Prepare(16, "strech")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="8 pixels"):
        Prepare(7)


def test_a_variant_is_a_function_of_seed_epoch_and_index() -> None:
    image = noise()
    variant = Augment(seed=3)(image, 1, 2)
    assert torch.equal(Augment(seed=3)(image, 1, 2), variant)
    for seed, epoch, index in ((4, 1, 2), (3, 2, 2), (3, 1, 3), (3, 2, 1)):
        assert not torch.equal(Augment(seed=seed)(image, epoch, index), variant)


def test_variants_stay_in_range_and_leave_the_image_alone() -> None:
    image = noise()
    before = image.clone()
    augment = Augment(rotation=40, zoom=(0.5, 2), brightness=0.8)
    for index in range(20):
        variant = augment(image, 0, index)
        assert variant.shape == image.shape
        assert variant.dtype is torch.float32
        assert float(variant.min()) >= 0
        assert float(variant.max()) <= 1
    assert torch.equal(image, before)


def test_global_random_state_is_untouched() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    state = str(np.random.get_state())  # noqa: NPY002 - this is the state that must not change
    torch.manual_seed(0)
    Augment()(noise(), 0, 0)
    list(EpochSampler(5, 0))
    list(EpochSampler(5, 0, torch.ones(5)))
    assert torch.equal(torch.rand(3), expected)
    assert str(np.random.get_state()) == state  # noqa: NPY002


def test_without_strength_nothing_changes() -> None:
    image = noise()
    for index in range(10):
        torch.testing.assert_close(Augment(**NO_CHANGE)(image, 0, index), image)


def test_flips_come_as_often_as_asked() -> None:
    image = noise()
    augment = Augment(**(NO_CHANGE | {"flip": 0.5}))
    flipped = 0
    for index in range(200):
        variant = augment(image, 0, index)
        turned = torch.allclose(variant, image.flip(-1), atol=1e-4)
        assert turned or torch.allclose(variant, image, atol=1e-4)
        flipped += turned
    assert 70 < flipped < 130


def test_brightness_changes_within_its_bound() -> None:
    image = noise() * 0.5 + 0.3
    augment = Augment(**(NO_CHANGE | {"brightness": 0.2}))
    factors = []
    for index in range(100):
        factor = augment(image, 0, index) / image
        assert float(factor.max() - factor.min()) < 1e-4
        factors.append(float(factor.mean()))
    assert 0.8 - 1e-6 <= min(factors) < 0.85
    assert 1.15 < max(factors) <= 1.2 + 1e-6


def test_zoom_scales_about_the_centre() -> None:
    image = torch.zeros(3, 41, 41)
    image[:, 15:26, 15:26] = 1
    larger = Augment(**(NO_CHANGE | {"zoom": (2.0, 2.0)}))(image, 0, 0)
    assert float(larger[0].sum()) == pytest.approx(4 * 11 * 11, rel=0.05)
    assert torch.equal(larger[0, 20, 10:31], torch.ones(21))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rotation": -1},
        {"flip": 1.5},
        {"zoom": (1.1, 0.9)},
        {"zoom": (0.0, 1.0)},
        {"brightness": 2},
    ],
)
def test_strengths_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Augment(**wrong)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    records = []
    for number in range(6):
        path = tmp_path / "images" / f"{number}.png"
        write_png(path, torch.rand(3, 20, 30, generator=generator(number)))
        records.append(Record(path, "ab"[number % 2], "train", "", ""))
    return Manifest({"name": "test"}, ("b", "a"), tuple(records), 0)


def test_dataset_gives_image_class_and_position(manifest: Manifest) -> None:
    dataset = ImageDataset(manifest, Prepare(16), Augment())
    assert len(dataset) == 6
    for index in range(6):
        image, label, position = dataset[index]
        assert torch.equal(image, Prepare(16)(read_image(manifest.records[index].path)))
        assert (label, position) == ((1, 0)[index % 2], index)
        assert isinstance(label, int)


def test_dataset_makes_the_variant_that_the_key_names(manifest: Manifest) -> None:
    augment = Augment(seed=1)
    dataset = ImageDataset(manifest, Prepare(16), augment)
    plain = dataset[4][0]
    image, label, position = dataset[(2, 4)]
    assert torch.equal(image, augment(plain, 2, 4))
    assert not torch.equal(image, plain)
    assert (label, position) == (1, 4)
    assert torch.equal(ImageDataset(manifest, Prepare(16))[(2, 4)][0], plain)


def test_dataset_feeds_a_loader_by_epoch(manifest: Manifest) -> None:
    dataset = ImageDataset(manifest, Prepare(16), Augment())
    sampler = EpochSampler(len(dataset), seed=0)
    sampler.set_epoch(3)
    images, labels, positions = next(iter(DataLoader(dataset, batch_size=6, sampler=sampler)))
    assert images.shape == (6, 3, 16, 16)
    assert labels.tolist() == manifest.labels()[positions].tolist()
    assert torch.equal(images[0], dataset[(3, int(positions[0]))][0])


def test_an_epoch_is_a_permutation_of_its_own() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochSampler(50, seed)
        sampler.set_epoch(epoch)
        assert len(sampler) == 50
        keys = list(sampler)
        assert {key[0] for key in keys} == {epoch}
        return [key[1] for key in keys]

    orders = [order(seed, epoch) for seed in range(2) for epoch in range(3)]
    assert all(sorted(found) == list(range(50)) for found in orders)
    assert len({tuple(found) for found in orders}) == 6
    assert order(1, 2) == orders[-1]


def test_weights_set_how_often_an_image_is_drawn() -> None:
    sampler = EpochSampler(4, 0, torch.tensor([1.0, 2.0, 5.0, 0.0]))
    drawn: Counter[int] = Counter()
    for epoch in range(1000):
        sampler.set_epoch(epoch)
        drawn.update(index for _, index in sampler)
    assert drawn.total() == 4000
    for index, share in enumerate((0.125, 0.25, 0.625, 0)):
        assert drawn[index] / 4000 == pytest.approx(share, abs=0.03)


def test_augmentation_figure_is_a_picture(manifest: Manifest, tmp_path: Path) -> None:
    dataset = ImageDataset(manifest, Prepare(16), Augment())
    path = augmentation_figure(dataset, tmp_path / "figures" / "augmented.png", 3, 2)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 200
        assert np.asarray(picture).std() > 10


def test_augmentation_figure_of_fewer_images_than_rows(manifest: Manifest, tmp_path: Path) -> None:
    dataset = ImageDataset(manifest.keep(lambda r: r.path.stem == "0"), Prepare(16), Augment())
    assert augmentation_figure(dataset, tmp_path / "one.png").is_file()


def test_crops_are_parts_of_the_image() -> None:
    """A crop as large as asked for is found in the image as it is."""
    image = noise(40, 60)
    crops = Crops({0: 40}, seed=1)
    for index in range(5):
        cut = crops(image, 0, index)
        assert cut.shape == (3, 40, 40)
        assert any(torch.equal(cut, image[:, :, left : left + 40]) for left in range(21))


def test_crops_never_add_pixels() -> None:
    """A checkerboard of single pixels is kept or averaged; enlarged, it would show squares."""
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    crops = Crops({0: 16}, seed=2)
    for index in range(20):
        cut = crops(board.expand(3, 64, 64).float(), 0, index)
        across = (cut[:, :, 1:] == cut[:, :, :-1]) & ((cut[:, :, 1:] == 0) | (cut[:, :, 1:] == 1))
        assert not across.any()


def test_crops_change_their_size_with_the_epoch() -> None:
    crops = Crops({3: 24, 0: 16})
    assert [crops.size(epoch) for epoch in (0, 2, 3, 9)] == [16, 16, 24, 24]
    assert crops(noise(30, 50), 4, 0).shape == (3, 24, 24)
    assert crops(noise(12, 20), 0, 0).shape == (3, 16, 16)  # smaller images are enlarged
    assert torch.equal(crops(noise(), 1, 7), Crops({3: 24, 0: 16})(noise(), 1, 7))
    assert not torch.equal(crops(noise(), 1, 7), crops(noise(), 2, 7))
    with pytest.raises(InputError, match="sizes: expected a side for epoch 0"):
        Crops({1: 16})
    with pytest.raises(InputError, match="at least 8 pixels"):
        Crops({0: 4})
