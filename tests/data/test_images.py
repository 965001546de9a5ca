from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from jernih.data.images import UnreadableImage, describe_image, read_image, write_png
from jernih.randomness import generator
from jernih.validate import InputError

RNG = np.random.default_rng(0)
GREY: NDArray[np.uint8] = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
COLOUR: NDArray[np.uint8] = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def save(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def refused(path: Path) -> str:
    with pytest.raises(UnreadableImage) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return caught.value.reason


def as_expected(image: torch.Tensor, pixels: NDArray[Any], scale: float = 255) -> None:
    assert image.dtype is torch.float32
    assert image.is_contiguous()
    wide = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    expected = torch.from_numpy((wide / scale).astype(np.float32)).permute(2, 0, 1)
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-7)


def test_greyscale_becomes_three_equal_channels(tmp_path: Path) -> None:
    as_expected(read_image(save(tmp_path / "grey.png", GREY)), GREY)


def test_colour_keeps_its_channels(tmp_path: Path) -> None:
    as_expected(read_image(save(tmp_path / "colour.png", COLOUR)), COLOUR)


def test_one_bit_is_black_or_white(tmp_path: Path) -> None:
    bits = GREY > 127
    Image.fromarray(bits).save(tmp_path / "bits.png")
    as_expected(read_image(tmp_path / "bits.png"), bits * 255)


def test_palette_is_looked_up(tmp_path: Path) -> None:
    indexed = Image.fromarray(GREY % 3).convert("P")
    indexed.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    indexed.save(tmp_path / "palette.png")
    table = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]])
    as_expected(read_image(tmp_path / "palette.png"), table[GREY % 3])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_keep_their_depth(tmp_path: Path, suffix: str) -> None:
    deep = RNG.integers(0, 65536, (20, 30), dtype=np.uint16)
    image = read_image(save(tmp_path / f"deep{suffix}", deep))
    as_expected(image, deep, 65535)
    assert len(set(image[0].flatten().tolist())) > 500


@pytest.mark.parametrize("bits", [8, 16])
def test_written_images_are_read_again(tmp_path: Path, bits: Literal[8, 16]) -> None:
    image = torch.rand(3, 20, 30, generator=generator("written"))
    image[0, 0, :2] = torch.tensor([0.0, 1.0])
    read = read_image(write_png(tmp_path / "image.png", image, bits=bits))
    off = (read - image).abs() * (2**bits - 1)
    assert 0.4 < float(off.max()) < 0.51
    assert read[0, 0, :2].tolist() == [0, 1]
    again = write_png(tmp_path / "again.png", read, bits=bits)
    assert again.read_bytes() == (tmp_path / "image.png").read_bytes()


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    inks = np.zeros((8, 8, 4), dtype=np.uint8)
    inks[:, :4, 0] = 255  # cyan absorbs red
    Image.frombytes("CMYK", (8, 8), inks.tobytes()).save(tmp_path / "inks.tif")
    image = read_image(tmp_path / "inks.tif")
    assert image[:, 0, 0].tolist() == [0, 1, 1]
    assert image[:, 0, 7].tolist() == [1, 1, 1]


def test_opaque_alpha_is_dropped(tmp_path: Path) -> None:
    opaque = np.dstack([COLOUR, np.full((20, 30), 255, np.uint8)])
    as_expected(read_image(save(tmp_path / "opaque.png", opaque)), COLOUR)


def test_transparent_pixels_are_refused(tmp_path: Path) -> None:
    alpha = np.full((20, 30), 255, np.uint8)
    alpha[3, 4] = 254
    assert "transparent" in refused(save(tmp_path / "a.png", np.dstack([COLOUR, alpha])))
    key = (int(COLOUR[0, 0, 0]), int(COLOUR[0, 0, 1]), int(COLOUR[0, 0, 2]))
    assert "transparent" in refused(save(tmp_path / "key.png", COLOUR, transparency=key))


def test_transparency_of_sixteen_bits_is_refused_where_it_is_met(tmp_path: Path) -> None:
    deep = np.arange(600, dtype=np.uint16).reshape(20, 30)
    as_expected(read_image(save(tmp_path / "unused.png", deep, transparency=60000)), deep, 65535)
    assert "transparent" in refused(save(tmp_path / "used.png", deep, transparency=7))


def test_several_frames_and_pages_are_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    for name in ("moving.gif", "pages.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert "several frames or pages" in refused(tmp_path / name)


def test_a_gif_of_one_frame_is_read(tmp_path: Path) -> None:
    as_expected(read_image(save(tmp_path / "still.gif", GREY)), GREY)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"cut{suffix}", RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    read_image(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert refused(path)


def test_a_png_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.png", COLOUR)
    content = whole.read_bytes()
    path = tmp_path / "cut.png"
    for length in range(0, len(content) - 16, 97):
        path.write_bytes(content[:length])
        assert refused(path)


def test_what_is_no_image_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "folder.png").mkdir()
    assert refused(tmp_path / "empty.png") == "an empty file"
    assert refused(tmp_path / "text.png") == "not an image in a known format"
    assert refused(tmp_path / "folder.png") == "a folder"
    assert refused(tmp_path / "absent.png") == "no such file"
    assert issubclass(UnreadableImage, InputError)


@pytest.mark.parametrize("limit", [500, 200])
def test_too_many_pixels_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    path = save(tmp_path / "large.png", GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # Pillow warns above, fails above twice
    assert refused(path) == "more pixels than is safe to decode"


def test_a_small_file_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(
            ">I", zlib.crc32(name + data)
        )  # fmt: skip

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))
    (tmp_path / "bomb.png").write_bytes(content + chunk(b"IEND", b""))
    assert refused(tmp_path / "bomb.png") == "more pixels than is safe to decode"


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90° clockwise
    image = read_image(save(tmp_path / "turned.png", COLOUR, exif=exif))
    as_expected(image, np.rot90(COLOUR, -1).copy())


def test_floating_point_grey_is_read_within_its_range_only(tmp_path: Path) -> None:
    values = RNG.random((20, 30), dtype=np.float32)
    as_expected(read_image(save(tmp_path / "float.tif", values)), values, 1)
    values[0, 0] = 1.5
    assert refused(save(tmp_path / "beyond.tif", values)) == "grey values outside [0, 1]"
    values[0, 0] = np.nan
    assert "outside" in refused(save(tmp_path / "nan.tif", values))


def test_32_bit_grey_beyond_16_bits_is_refused(tmp_path: Path) -> None:
    values = np.array([[0, 65535], [1, 2]], dtype=np.int32)
    as_expected(read_image(save(tmp_path / "fits.tif", values)), values, 65535)
    values[0, 0] = -1
    assert refused(save(tmp_path / "below.tif", values)) == "grey values outside [0, 65535]"


def test_header_facts(tmp_path: Path) -> None:
    facts = describe_image(save(tmp_path / "grey.jpg", GREY))
    assert (facts.width, facts.height, facts.mode, facts.format) == (30, 20, "L", "JPEG")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(UnreadableImage, match="known format"):
        describe_image(tmp_path / "text.png")


def test_written_png_comes_back(tmp_path: Path) -> None:
    exact = torch.from_numpy(COLOUR).permute(2, 0, 1).float() / 255
    path = write_png(tmp_path / "deep" / "folder" / "exact.png", exact)
    assert torch.equal(read_image(path), exact)
    image = torch.rand(3, 16, 24, generator=torch.Generator().manual_seed(0))
    difference = (read_image(write_png(tmp_path / "any.png", image)) - image).abs().max()
    assert 0 < difference <= 0.5 / 255 + 1e-6
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_write_png_refuses_values_outside_the_range(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        write_png(tmp_path / "bright.png", torch.full((3, 4, 4), 1.2))
    assert not (tmp_path / "bright.png").exists()
