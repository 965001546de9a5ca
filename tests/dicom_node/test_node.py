"""The node with real senders and a real receiver: dcmtk and Orthanc."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE

from jernih.answer import Answerer
from jernih.data.dicom import read_dicom
from jernih.data.modify import Prepare
from jernih.dicom_node import DicomNode, read_peer
from jernih.dicom_node.objects import report, restored_image
from jernih.hub import write_defended
from jernih.validate import InputError
from tests.dicom_node.peers import (
    answerer,
    free_port,
    needs_dcmtk,
    needs_orthanc,
    orthanc,
    radiograph,
    settings,
    storescu,
)
from tests.helpers import wait_until
from tests.test_answer import model

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom's, about odd values


def test_objects_say_what_the_model_says_and_where_it_comes_from(tmp_path: Path) -> None:
    file = radiograph(tmp_path / "a.dcm")
    source = dcmread(file)
    answer = answerer()([read_dicom(file)])[0]
    text = report(source, answer, "a model")
    again = report(source, answer, "a model")
    assert text.SOPInstanceUID == again.SOPInstanceUID
    assert text.SOPInstanceUID != report(source, answer, "another").SOPInstanceUID
    whole = str(text)
    assert answer.label in whole
    assert "not a diagnosis" in whole
    assert text.StudyInstanceUID == source.StudyInstanceUID
    assert text.PatientID == "P7"
    shown = restored_image(source, answer, "a model")
    assert shown.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert shown.ImageType[0] == "DERIVED"
    pixels = shown.pixel_array / 255
    expected = answer.restored.mean(0).numpy()
    assert abs(pixels - expected).max() <= 1 / 254


@needs_orthanc
def test_images_are_answered_in_the_archive(tmp_path: Path) -> None:
    files = [
        radiograph(tmp_path / "cr.dcm", 0),
        radiograph(tmp_path / "dx.dcm", 1, DigitalXRayImageStorageForPresentation),
        radiograph(tmp_path / "sc.dcm", 2, SecondaryCaptureImageStorage),
        radiograph(tmp_path / "inverse.dcm", 3, PhotometricInterpretation="MONOCHROME1"),
    ]
    with (
        orthanc(tmp_path / "orthanc") as archive,
        DicomNode(answerer(), settings(tmp_path / "spool", archive.dicom)) as node,
    ):
        code, said = storescu(node.port, *files)
        assert code == 0, said
        found = archive.wait(8)
        time.sleep(0.5)
        assert len(archive.get("/instances")) == 8
        again, _ = storescu(node.port, *files)
        assert again == 0
        time.sleep(1)
        assert len(archive.get("/instances")) == 8
    assert sorted(tags["Modality"] for tags in found) == ["CR"] * 4 + ["SR"] * 4
    assert {tags["StudyInstanceUID"] for tags in found} == {"1.2.3.4"}
    sources = {str(dcmread(file).SOPInstanceUID) for file in files}
    named = {
        tags["SourceImageSequence"][0]["ReferencedSOPInstanceUID"]
        for tags in found
        if tags["Modality"] == "CR"
    }
    assert named == sources
    assert list((tmp_path / "spool").rglob("*.dcm")) == []


@needs_orthanc
def test_a_peer_that_is_down_gets_it_later(tmp_path: Path) -> None:
    port = free_port()
    files = [radiograph(tmp_path / f"{k}.dcm", k) for k in range(3)]
    with DicomNode(answerer(), settings(tmp_path / "spool", port)) as node:
        assert storescu(node.port, *files)[0] == 0
        outgoing = tmp_path / "spool" / "outgoing"
        assert wait_until(lambda: len(list(outgoing.glob("*.dcm"))) >= 6, 30)
        with orthanc(tmp_path / "orthanc", port) as archive:
            archive.wait(6)
            time.sleep(0.5)
            assert len(archive.get("/instances")) == 6
            assert len({tags["SOPInstanceUID"] for tags in archive.instances()}) == 6


def start(folder: Path, port: int, peer: int) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-m", "jernih", "dicom-node", str(folder / "model"), "--device", "cpu",
        "--spool", str(folder / "spool"), "--port", str(port),
        "--peer", f"ORTHANC@127.0.0.1:{peer}",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603
    limit = time.monotonic() + 120
    while subprocess.run(  # noqa: S603
        ["echoscu", "-aec", "JERNIH", "127.0.0.1", str(port)],  # noqa: S607
        capture_output=True,
        check=False,
    ).returncode:
        assert time.monotonic() < limit
        assert process.poll() is None
        time.sleep(0.3)
    return process


@needs_orthanc
@pytest.mark.slow
def test_a_kill_loses_nothing(tmp_path: Path) -> None:
    write_defended(model(prepare=Prepare(32)), tmp_path / "model")
    port, peer = free_port(), free_port()
    files = [radiograph(tmp_path / f"{k}.dcm", k) for k in range(6)]
    process = start(tmp_path, port, peer)
    for place, file in enumerate(files):
        code, said = storescu(port, file)
        assert code == 0, said
        if place % 2:  # acknowledged, perhaps worked on, certainly not sent
            process.send_signal(signal.SIGKILL)
            process.wait()
            process = start(tmp_path, port, peer)
    try:
        with orthanc(tmp_path / "orthanc", peer) as archive:
            archive.wait(12)
            time.sleep(1)
            found = archive.instances()
            assert len(found) == 12
            assert sum(tags["Modality"] == "SR" for tags in found) == 6
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def status(port: int, file: Path) -> tuple[int, str]:
    """The status and the comment that a sender gets, as numbers and words."""
    data = dcmread(file)
    entity = AE(ae_title="SENDER")
    entity.add_requested_context(data.SOPClassUID, data.file_meta.TransferSyntaxUID)
    link = entity.associate("127.0.0.1", port, ae_title="JERNIH")
    assert link.is_established
    answer = link.send_c_store(data)
    link.release()
    return int(answer.Status), str(answer.get("ErrorComment", ""))


@needs_dcmtk
def test_what_is_refused(tmp_path: Path) -> None:
    with DicomNode(answerer(), settings(tmp_path / "spool", free_port(), max_bytes=20_000)) as node:
        other = radiograph(tmp_path / "ct.dcm", 0, CTImageStorage)
        code, said = storescu(node.port, other)
        assert code != 0
        assert "No presentation context" in said or "not accepted" in said.lower()
        frames = radiograph(tmp_path / "frames.dcm", 1, NumberOfFrames=2)
        assert "CannotUnderstand" in storescu(node.port, frames)[1]
        assert status(node.port, frames) == (0xC000, "several frames; one is expected")
        bare = dcmread(radiograph(tmp_path / "bare.dcm", 2))
        del bare.PixelData
        bare.save_as(tmp_path / "bare.dcm")
        assert status(node.port, tmp_path / "bare.dcm")[0] == 0xA900
        large = radiograph(
            tmp_path / "large.dcm", 3, ImageComments="x" * 9000, PatientComments="y" * 9000
        )
        assert status(node.port, large)[0] == 0xA700
        fine = radiograph(tmp_path / "fine.dcm", 4)
        assert storescu(node.port, fine)[0] == 0
        changed = dcmread(fine)
        changed.PatientID = "P8"
        changed.save_as(tmp_path / "changed.dcm")
        assert status(node.port, tmp_path / "changed.dcm")[0] == 0xC101
        assert storescu(node.port, fine)[0] == 0


@needs_dcmtk
def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    with DicomNode(answerer(), settings(tmp_path / "spool", free_port())) as node:
        with monkeypatch.context() as patch:
            patch.setattr(node.spool, "take", full)
            file = radiograph(tmp_path / "a.dcm")
            assert "OutOfResources" in storescu(node.port, file)[1]
            assert status(node.port, file) == (0xA700, "no room on the disk")
        assert storescu(node.port, tmp_path / "a.dcm")[0] == 0


@needs_dcmtk
def test_only_those_allowed(tmp_path: Path) -> None:
    file = radiograph(tmp_path / "a.dcm")
    with DicomNode(
        answerer(), settings(tmp_path / "spool", free_port(), allow=("FRIEND",))
    ) as node:
        assert storescu(node.port, file)[0] != 0
        assert storescu(node.port, file, options=("-aet", "FRIEND"))[0] == 0


@needs_dcmtk
def test_images_that_turn_out_unreadable_are_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    short = dcmread(radiograph(tmp_path / "short.dcm"))
    short.PixelData = short.PixelData[:100]
    short.save_as(tmp_path / "short.dcm")
    caplog.set_level("INFO", "jernih.dicom")
    with DicomNode(answerer(), settings(tmp_path / "spool", free_port())) as node:
        assert storescu(node.port, tmp_path / "short.dcm")[0] == 0
        failed = tmp_path / "spool" / "failed"
        assert wait_until(lambda: any(failed.glob("*.json")), 20)
    assert "Invented" not in caplog.text
    assert "P7" not in caplog.text
    assert str(short.SOPInstanceUID) not in caplog.text


def test_settings() -> None:
    peer = read_peer("ORTHANC@10.0.0.1:4242")
    assert (peer.title, peer.host, peer.port) == ("ORTHANC", "10.0.0.1", 4242)
    for text in ("ORTHANC", "A@b", "A@b:0", "A@b:99999", "A\\B@c:1", "@c:1", "A" * 17 + "@c:1"):
        with pytest.raises(InputError, match="TITLE@host:port"):
            read_peer(text)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with DicomNode(answerer(), settings(tmp_path / "one", free_port())) as node:
        taken = settings(tmp_path / "two", free_port(), port=node.port)
        with pytest.raises(InputError, match="one that is free"):
            DicomNode(answerer(), taken).__enter__()
        assert isinstance(node.answerer, Answerer)
    assert list((tmp_path / "two" / "incoming").iterdir()) == []
