from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from jernih.data.dicom import describe_dicom, read_dicom
from jernih.data.images import UnreadableImage, describe_image, read_image


def write(
    path: Path,
    pixels: NDArray[Any] | bytes | None,
    syntax: UID = ExplicitVRLittleEndian,
    **tags: Any,
) -> Path:
    """Write a DICOM file; the tags that describe the pixels follow from the array."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID = meta.MediaStorageSOPClassUID
    file.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    defaults: dict[str, Any] = {}
    if isinstance(pixels, np.ndarray):
        bits = 8 * pixels.itemsize
        defaults |= {"Rows": pixels.shape[0], "Columns": pixels.shape[1]}
        defaults |= {"BitsAllocated": bits, "BitsStored": bits}
        defaults |= {"PixelRepresentation": int(pixels.dtype.kind == "i")}
        defaults |= {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}
        if pixels.ndim == 3:
            defaults |= {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
            defaults |= {"PlanarConfiguration": 0}
    for name, value in (defaults | tags).items():
        setattr(file, name, value)
    if "BitsStored" in file:
        file.HighBit = file.BitsStored - 1
    if pixels is not None:
        file.PixelData = pixels.tobytes() if isinstance(pixels, np.ndarray) else pixels
        file["PixelData"].VR = "OW" if file.BitsAllocated > 8 else "OB"
        if file["PixelData"].VR == "OB" and len(file.PixelData) % 2:
            file.PixelData += b"\0"
    file.save_as(path, enforce_file_format=True)
    return path


def shows(path: Path, expected: list[list[float]]) -> None:
    image = read_dicom(path)
    wanted = torch.tensor(expected, dtype=torch.float32).expand(3, -1, -1)
    assert image.dtype is torch.float32
    torch.testing.assert_close(image, wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(read_image(path), image)


def refused(path: Path) -> str:
    with pytest.raises(UnreadableImage) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    return caught.value.reason


def test_without_a_window_the_stored_bits_span_the_range(tmp_path: Path) -> None:
    eight = np.array([[0, 51], [102, 204]], dtype=np.uint8)
    shows(write(tmp_path / "a.dcm", eight), [[0, 0.2], [0.4, 0.8]])
    twelve = np.array([[0, 819, 4095]], dtype=np.uint16)
    shows(write(tmp_path / "b.dcm", twelve, BitsStored=12), [[0, 0.2, 1]])
    signed = np.array([[-128, -77, 127]], dtype=np.int8)
    shows(write(tmp_path / "c.dcm", signed), [[0, 0.2, 1]])


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    pixels = np.array([[0, 51], [102, 204]], dtype=np.uint8)
    path = write(tmp_path / "a.dcm", pixels, PhotometricInterpretation="MONOCHROME1")
    shows(path, [[1, 0.8], [0.6, 0.2]])


def test_window_of_twelve_bits(tmp_path: Path) -> None:
    # PS3.3 C.11.2.1.2: (x − (c − 0.5)) / (w − 1) + 0.5, with c = 2048 and w = 1001.
    pixels = np.array([[0, 1547, 1797], [2047, 2547, 4095]], dtype=np.uint16)
    path = write(tmp_path / "a.dcm", pixels, BitsStored=12, WindowCenter=2048, WindowWidth=1001)
    centre = 2047.5
    middle = [(x - centre) / 1000 + 0.5 for x in (1797, 2047, 2547)]
    shows(path, [[0, 0, middle[0]], [middle[1], middle[2], 1]])


def test_the_first_of_several_windows_counts(tmp_path: Path) -> None:
    pixels = np.array([[0, 100, 200, 255]], dtype=np.uint8)
    path = write(
        tmp_path / "a.dcm", pixels, WindowCenter=[100.5, 9], WindowWidth=[201, 3]
    )  # from 0 to 200
    shows(path, [[0, 0.5, 1, 1]])


def test_an_exact_window_on_rescaled_signed_pixels(tmp_path: Path) -> None:
    # 2 · x − 1000, shown from −200 to 200.
    pixels = np.array([[-5, 400, 450], [500, 600, 2000]], dtype=np.int16)
    path = write(
        tmp_path / "a.dcm", pixels, RescaleSlope=2, RescaleIntercept=-1000, RescaleType="HU",
        WindowCenter=0, WindowWidth=400, VOILUTFunction="LINEAR_EXACT",
    )  # fmt: skip
    shows(path, [[0, 0, 0.25], [0.5, 1, 1]])


def test_a_falling_rescale_slope_inverts(tmp_path: Path) -> None:
    pixels = np.array([[0, 51, 255]], dtype=np.uint8)
    path = write(tmp_path / "a.dcm", pixels, RescaleSlope=-1, RescaleIntercept=100)
    shows(path, [[1, 0.8, 0]])
    pixels = np.array([[0, 50, 100]], dtype=np.uint8)
    windowed: dict[str, Any] = {
        "WindowCenter": 50,
        "WindowWidth": 100,
        "VOILUTFunction": "LINEAR_EXACT",
    }
    path = write(tmp_path / "b.dcm", pixels, RescaleSlope=-1, RescaleIntercept=100, **windowed)
    shows(path, [[1, 0.5, 0]])


def test_sixteen_bits_keep_their_depth(tmp_path: Path) -> None:
    pixels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = read_dicom(write(tmp_path / "a.dcm", pixels))
    assert len(set(image[0].flatten().tolist())) == 65536


@pytest.mark.parametrize("depth", [8, 16])
def test_a_lookup_table_is_applied(tmp_path: Path, depth: int) -> None:
    full = 2**depth - 1
    table = Dataset()
    table.LUTDescriptor = [300, 100, depth]
    table["LUTDescriptor"].VR = "US"
    table.LUTData = [0] * 100 + [full // 3] * 100 + [full] * 100
    table["LUTData"].VR = "US"
    pixels = np.array([[0, 150, 210], [299, 310, 4095]], dtype=np.uint16)
    path = write(tmp_path / "a.dcm", pixels, BitsStored=12, VOILUTSequence=[table])
    shows(path, [[0, 0, 1 / 3], [1 / 3, 1, 1]])
    # A window goes before the table.
    path = write(
        tmp_path / "b.dcm", pixels, BitsStored=12, VOILUTSequence=[table],
        WindowCenter=210, WindowWidth=1,
    )  # fmt: skip
    shows(path, [[0, 0, 1], [1, 1, 1]])


def test_colour_keeps_its_channels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    expected = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    torch.testing.assert_close(read_dicom(write(tmp_path / "a.dcm", pixels)), expected)


def test_ybr_becomes_rgb(tmp_path: Path) -> None:
    pixels = np.array([[[76, 85, 255], [150, 44, 21]]], dtype=np.uint8)  # JFIF red and green
    image = read_dicom(write(tmp_path / "a.dcm", pixels, PhotometricInterpretation="YBR_FULL"))
    expected = torch.tensor([[[1.0, 0]], [[0, 1]], [[0, 0]]])
    torch.testing.assert_close(image, expected, rtol=0, atol=2.1 / 255)


def test_baseline_jpeg_is_decoded(tmp_path: Path) -> None:
    # The compression of the RSNA radiographs.
    ramp = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None], 64, axis=0)
    stream = io.BytesIO()
    Image.fromarray(ramp).save(stream, format="JPEG", quality=95)
    described: dict[str, Any] = {
        "Rows": 64, "Columns": 64, "BitsAllocated": 8, "BitsStored": 8, "SamplesPerPixel": 1,
        "PixelRepresentation": 0, "PhotometricInterpretation": "MONOCHROME2",
        "WindowCenter": 127.5, "WindowWidth": 255, "VOILUTFunction": "LINEAR_EXACT",
    }  # fmt: skip
    content = encapsulate([stream.getvalue()])
    path = write(tmp_path / "a.dcm", content, JPEGBaseline8Bit, **described)
    expected = torch.from_numpy(ramp).float().expand(3, -1, -1) / 255
    torch.testing.assert_close(read_dicom(path), expected, rtol=0, atol=0.02)
    path = write(tmp_path / "b.dcm", content, JPEGLosslessSV1, **described)
    assert refused(path).startswith("compressed as JPEG Lossless")


def test_what_has_no_single_reading_is_refused(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4), dtype=np.uint8)
    two = write(tmp_path / "two.dcm", pixels.tobytes() * 2, Rows=4, Columns=4, BitsAllocated=8,
                BitsStored=8, SamplesPerPixel=1, PixelRepresentation=0, NumberOfFrames=2,
                PhotometricInterpretation="MONOCHROME2")  # fmt: skip
    assert refused(two) == "2 frames; one is expected"
    assert refused(write(tmp_path / "none.dcm", None)) == "a DICOM file without pixels"
    with pytest.raises(UnreadableImage, match="without pixels"):
        describe_dicom(tmp_path / "none.dcm")
    palette = write(tmp_path / "p.dcm", pixels, PhotometricInterpretation="PALETTE COLOR")
    assert "PALETTE COLOR" in refused(palette)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.dcm").write_bytes(b"junk" * 100)
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "folder.dcm").mkdir()
    assert refused(tmp_path / "junk.dcm") == "not a DICOM file"
    assert refused(tmp_path / "empty.dcm") == "an empty file"
    assert refused(tmp_path / "folder.dcm") == "a folder"
    assert refused(tmp_path / "absent.dcm") == "no such file"
    whole = write(tmp_path / "whole.dcm", np.zeros((16, 16), dtype=np.uint16)).read_bytes()
    for length in range(132, len(whole), 41):
        (tmp_path / "cut.dcm").write_bytes(whole[:length])
        assert refused(tmp_path / "cut.dcm")


def test_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.dcm", np.zeros((20, 30), dtype=np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    assert refused(path) == "more pixels than is safe to decode"


def test_dicom_is_known_by_its_content_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", np.array([[0, 255]], dtype=np.uint8)).rename(tmp_path / "b")
    assert read_image(path)[0].tolist() == [[0, 1]]


def test_header_facts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", np.zeros((20, 30), dtype=np.uint16), BitsStored=12)
    facts = describe_image(path)
    assert (facts.width, facts.height, facts.format) == (30, 20, "DICOM")
    assert facts.mode == "MONOCHROME2, 16 bits"


def test_a_damaged_length_asks_for_no_gigabytes(tmp_path: Path) -> None:
    import resource
    import subprocess
    import sys

    whole = bytearray(write(tmp_path / "a.dcm", np.zeros((4, 4), np.uint16)).read_bytes())
    place = whole.index(b"\xe0\x7f\x10\x00OW") + 8  # the length of the pixel data
    whole[place : place + 4] = (0xFFFFFF00).to_bytes(4, "little")
    (tmp_path / "a.dcm").write_bytes(whole)
    limit = 6 * 2**30 + resource.getpagesize()
    code = (
        "import resource, sys; from jernih.data.dicom import *; "
        f"resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))\n"
        "from jernih.data.images import UnreadableImage\n"
        "for read in (describe_dicom, read_dicom):\n"
        "    try: read(sys.argv[1]); print('read')\n"
        "    except UnreadableImage as error: print(error.reason)\n"
    )
    found = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, str(tmp_path / "a.dcm")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert len(found.stdout.splitlines()) == 2


def test_sequences_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    inner = b"".join(
        b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
        for _ in range(5000)
    )
    whole = write(tmp_path / "a.dcm", np.zeros((4, 4), np.uint16)).read_bytes()
    place = whole.index(b"\x28\x00\x02\x00US")  # the first of the pixels' tags
    (tmp_path / "a.dcm").write_bytes(whole[:place] + inner + whole[place:])
    with pytest.raises(UnreadableImage):
        read_dicom(tmp_path / "a.dcm")
