"""Image files through a purifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jernih.data.images import read_image, write_png
from jernih.purifiers import PURIFIERS, JernihS, find_purifier, save_purifier
from jernih.purify_files import purify_files
from jernih.randomness import generator, seeded
from jernih.validate import InputError

MEDIAN = PURIFIERS.create("median").eval()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images of several sizes and kinds, and one that is damaged."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, (name, mode, size) in enumerate(
        [
            ("a.png", "RGB", (40, 30)),
            ("A.jpg", "RGB", (33, 57)),
            ("more/a.png", "L", (16, 16)),
            ("more/b.bmp", "RGB", (21, 64)),
        ]
    ):
        shape = (*size[::-1], 3) if mode == "RGB" else size[::-1]
        pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_a_folder(photos: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    out = tmp_path / "out"
    made = purify_files(photos, out, MEDIAN, progress=lambda *at: seen.append(at))
    assert seen == [(k, 5) for k in range(1, 6)]
    assert [str(f.relative_to(out)) for f in made.written] == [
        "A.png", "a-2.png", "more/a.png", "more/b.png"
    ]  # fmt: skip
    assert list(made.unreadable) == [str(photos / "broken.png")]
    assert made.kept == ()
    for source, target in (("A.jpg", "A.png"), ("a.png", "a-2.png"), ("more/b.bmp", "more/b.png")):
        image = read_image(photos / source)
        expected = MEDIAN(image[None])[0]
        assert not torch.equal(expected, image)
        torch.testing.assert_close(read_image(out / target), expected, rtol=0, atol=0.5 / 255)
    grey = read_image(out / "more/a.png")
    assert torch.equal(grey[0], grey[1])


def test_files_that_are_there_stay(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    purify_files(photos, out, MEDIAN)
    first = (out / "more" / "a.png").read_bytes()
    (out / "A.png").unlink()
    blurred = PURIFIERS.create("median", size=7).eval()
    again = purify_files(photos, out, blurred)
    assert [file.name for file in again.written] == ["A.png"]
    assert len(again.kept) == 3
    assert (out / "more" / "a.png").read_bytes() == first
    purify_files(photos, out, blurred, overwrite=True)
    assert (out / "more" / "a.png").read_bytes() != first


def test_a_single_image(photos: Path, tmp_path: Path) -> None:
    image = photos / "more" / "b.bmp"
    assert purify_files(image, tmp_path / "x.png", MEDIAN).written == (tmp_path / "x.png",)
    assert purify_files(image, tmp_path / "y", MEDIAN).written == (tmp_path / "y" / "b.png",)


def test_sides_that_the_purifier_does_not_take(photos: Path, tmp_path: Path) -> None:
    with seeded("sides"):
        purifier = PURIFIERS.create("conv-autoencoder", widths=(4, 8)).eval()
    made = purify_files(photos, tmp_path / "out", purifier)
    assert len(made.written) == 4
    image = read_image(photos / "a.png")  # 30 high, 40 wide
    mirrored = torch.cat([image, image[:, [28, 27]]], 1)
    expected = purifier(mirrored[None])[0, :, :30].detach()
    found = read_image(tmp_path / "out" / "a-2.png")
    torch.testing.assert_close(found, expected, rtol=0, atol=0.51 / 255)


def test_sixteen_bits(tmp_path: Path) -> None:
    image = torch.rand(3, 20, 24, generator=generator("sixteen bits"))
    write_png(tmp_path / "in.png", image, bits=16)
    purify_files(tmp_path / "in.png", tmp_path / "out.png", MEDIAN, bits=16)
    expected = MEDIAN(read_image(tmp_path / "in.png")[None])[0]
    found = read_image(tmp_path / "out.png")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_originals_are_never_written_over(photos: Path) -> None:
    before = {file: file.read_bytes() for file in photos.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match="out: expected another place than the images'"):
        purify_files(photos, photos, MEDIAN, overwrite=True)
    with pytest.raises(InputError, match="another place"):
        purify_files(photos / "a.png", photos / "a.png", MEDIAN, overwrite=True)
    assert before == {file: file.read_bytes() for file in photos.rglob("*") if file.is_file()}


def test_bad_arguments(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="source: expected an existing file or folder"):
        purify_files(tmp_path / "nothing", tmp_path / "out", MEDIAN)
    with pytest.raises(InputError, match="at least one readable image; got 1 unreadable"):
        purify_files(photos / "broken.png", tmp_path / "out", MEDIAN)
    with pytest.raises(InputError, match="bits"):
        purify_files(photos, tmp_path / "out", MEDIAN, bits=12)
    with pytest.raises(InputError, match="evaluation mode"):
        purify_files(photos, tmp_path / "out", JernihS().train())
    assert not (tmp_path / "out").exists()


def test_find_purifier(tmp_path: Path) -> None:
    with seeded("find"):
        purifier = JernihS()
        torch.nn.init.normal_(purifier.leave.weight, std=0.01)
    save_purifier(purifier, tmp_path / "s.safetensors")
    images = torch.rand(1, 3, 32, 32, generator=generator("find"))
    found = find_purifier(tmp_path / "s.safetensors")
    assert torch.equal(found(images), purifier.eval()(images))
    assert find_purifier(name="jpeg", options={"quality": 20}).describe()["quality"] == 20
    halved = find_purifier(tmp_path / "s.safetensors", options={"strength": 0.5})
    grey = 0.4 + 0.2 * images  # nothing is clamped
    assert not torch.allclose(found(grey), grey, atol=1e-4)
    assert torch.allclose(halved(grey), (grey + found(grey)) / 2, atol=1e-6)
    assert find_purifier().describe() == find_purifier("jernih-s-imagenet").describe()
    for arguments, message in (
        ({"options": {"a": 1}}, "expected one of 'strength', 'precision'; got 'a'"),
        ({"options": {"strength": -1}}, "strength"),
        ({"weights": "x", "name": "jpeg"}, "got both"),
        ({"name": "jernih-s"}, "weights for 'jernih-s', which learns"),
        (
            {"weights": tmp_path / "s.safetensors", "options": {"a": 1}},
            "'strength', 'precision'; got 'a'",
        ),
        ({"name": "jpgg"}, "nearest: 'jpeg'"),
    ):
        with pytest.raises(InputError, match=message):
            find_purifier(**arguments)
