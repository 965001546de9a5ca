"""What the service and the node print, whatever comes to them, tells nothing of patients."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pydicom import dcmread

from jernih.data.images import write_png
from jernih.data.modify import Prepare
from jernih.hub import write_defended
from tests.dicom_node.peers import free_port, needs_dcmtk, radiograph, storescu
from tests.test_answer import model

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom's, about odd values

MARK = "Muster7391"


def marked(path: Path, number: int = 0, **tags: Any) -> Path:
    """An instance whose every free text names its patient, and which is odd in many ways."""
    names = {
        "PatientName": f"{MARK}^{'x' * 70}", "PatientID": MARK,
        "AccessionNumber": f"{MARK}-{'9' * 30}",
        "StudyDescription": MARK, "PatientBirthDate": MARK, "PatientAge": MARK, "StudyDate": MARK,
        "StudyID": f"{MARK}{'1' * 20}",
    }  # fmt: skip
    return radiograph(path, number, **{**names, **tags})


def ended(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=60)
    return str(out or "") + str(errors or "")


def test_the_service(tmp_path: Path) -> None:
    httpx = pytest.importorskip("httpx")
    from tests.serve.test_command import started

    write_defended(model(prepare=Prepare(32)), tmp_path / "model")
    image = write_png(tmp_path / "a.png", torch.rand(3, 30, 40)).read_bytes()
    radiographs = [
        marked(tmp_path / "good.dcm").read_bytes(),
        marked(tmp_path / "frames.dcm", NumberOfFrames=3).read_bytes(),
        marked(tmp_path / "colour.dcm", PhotometricInterpretation=MARK).read_bytes(),
    ]
    process, address = started([str(tmp_path / "model"), "--device", "cpu", "--no-page"])
    try:
        for content in (image, b"", image[:50], *radiographs, radiographs[0][:900]):
            files = {"image": (f"{MARK}.dcm", content)}
            httpx.post(f"{address}/v1/classify?name={MARK}", files=files, timeout=60)
            files = {MARK: (f"{MARK}.dcm", content)}
            httpx.post(f"{address}/v1/classify/batch", files=files, timeout=60)
        httpx.get(f"{address}/{MARK}")
        httpx.post(f"{address}/v2/models/{MARK}/infer", json={"id": MARK})
        httpx.post(f"{address}/v1/classify", json={"image": MARK}, headers={"user-agent": MARK})
    finally:
        said = ended(process)
    assert said.count('"status"') >= 17
    assert MARK not in said


@needs_dcmtk
def test_the_node(tmp_path: Path) -> None:
    write_defended(model(prepare=Prepare(32)), tmp_path / "model")
    files = [
        marked(tmp_path / "good.dcm"),
        marked(tmp_path / "frames.dcm", 1, NumberOfFrames=3),
        marked(tmp_path / "colour.dcm", 2, PhotometricInterpretation="PALETTE COLOR"),
        marked(tmp_path / "study.dcm", 3, StudyInstanceUID=f"1.2.{'3' * 70}"),
    ]
    short = dcmread(marked(tmp_path / "short.dcm", 4))
    short.PixelData = short.PixelData[:100]
    short.save_as(tmp_path / "short.dcm")
    port = free_port()
    process = subprocess.Popen(  # noqa: S603
        [
            sys.executable, "-m", "jernih", "dicom-node", str(tmp_path / "model"), "--port",
            str(port), "--spool", str(tmp_path / "spool"), "--peer", f"A@127.0.0.1:{free_port()}",
            "--device", "cpu",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        limit = time.monotonic() + 90
        while storescu(port, files[0])[0] and time.monotonic() < limit:
            time.sleep(0.5)
        for file in (*files[1:], tmp_path / "short.dcm", files[0]):
            storescu(port, file)
        while time.monotonic() < limit and not list((tmp_path / "spool/failed").glob("*.json")):
            time.sleep(0.2)
        time.sleep(3)
    finally:
        said = ended(process)
    assert said.count("taken") >= 2, said
    assert "refused" in said
    assert "set aside" in said
    assert MARK not in said
