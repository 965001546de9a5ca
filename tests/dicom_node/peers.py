"""Real peers: dcmtk's tools and Orthanc, on free ports of this machine."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import UID, ComputedRadiographyImageStorage, generate_uid

from jernih.answer import Answerer
from jernih.data.modify import Prepare
from jernih.dicom_node.settings import NodeSettings, Peer
from tests.data.test_dicom import write
from tests.helpers import wait_until
from tests.test_answer import model

ORTHANC = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
STORESCU = shutil.which("storescu")
needs_dcmtk = pytest.mark.skipif(STORESCU is None, reason="dcmtk is not installed")
needs_orthanc = pytest.mark.skipif(
    ORTHANC is None or STORESCU is None, reason="Orthanc or dcmtk is not installed"
)


def answerer() -> Answerer:
    return Answerer(model(prepare=Prepare(32)), "cpu")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(spool: Path, peer: int, **changes: Any) -> NodeSettings:
    given: dict[str, Any] = {
        "peer": Peer(title="ORTHANC", host="127.0.0.1", port=peer), "spool": spool, "port": 0,
        "retry_s": 0.2, "retry_most_s": 1.0,
    }  # fmt: skip
    return NodeSettings(**{**given, **changes})


def radiograph(
    path: Path,
    number: int = 0,
    sop_class: UID = ComputedRadiographyImageStorage,
    **tags: Any,
) -> Path:
    """An instance of an invented patient."""
    pixels = np.random.default_rng(number).integers(0, 4000, (40, 50), dtype=np.uint16)
    known = {
        "SOPClassUID": sop_class, "SOPInstanceUID": generate_uid(), "StudyInstanceUID": "1.2.3.4",
        "SeriesInstanceUID": "1.2.3.4.5", "PatientName": "Invented^Person", "PatientID": "P7",
        "Modality": "CR", "InstanceNumber": number, "BitsStored": 12,
    }  # fmt: skip
    write(path, pixels, **{**known, **tags})
    from pydicom import dcmread

    made = dcmread(path)  # the header of the file names another class and instance
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.save_as(path)
    return path


def storescu(port: int, *files: Path, options: tuple[str, ...] = ()) -> tuple[int, str]:
    """Send files as dcmtk does; exit code and what it said."""
    command = [str(STORESCU), "-v", "-aec", "JERNIH", "-aet", "SENDER", *options]
    done = subprocess.run(  # noqa: S603
        [*command, "127.0.0.1", str(port), *map(str, files)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@dataclass
class Orthanc:
    """A running Orthanc: its DICOM port, and its database by REST."""

    dicom: int
    http: int

    def get(self, path: str) -> Any:
        import httpx

        return httpx.get(f"http://127.0.0.1:{self.http}{path}", timeout=10).json()

    def instances(self) -> list[dict[str, Any]]:
        """The tags of all instances."""
        return [self.get(f"/instances/{name}/simplified-tags") for name in self.get("/instances")]

    def wait(self, count: int, seconds: float = 60) -> list[dict[str, Any]]:
        """Wait until there are so many instances."""
        wait_until(lambda: len(self.get("/instances")) >= count, seconds)
        return self.instances()


@contextmanager
def orthanc(folder: Path, dicom: int | None = None) -> Iterator[Orthanc]:
    """Run Orthanc with its database in a folder."""
    import httpx

    found = Orthanc(dicom or free_port(), free_port())
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "Name": "test",
        "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
        "DicomPort": found.dicom, "DicomAet": "ORTHANC", "HttpPort": found.http,
        "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "Plugins": [],
        "DicomModalities": {}, "OverwriteInstances": False, "DicomAlwaysAllowStore": True,
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "orthanc.log").open("w") as log:
        process = subprocess.Popen(  # noqa: S603
            [str(ORTHANC), str(folder / "orthanc.json")], stdout=log, stderr=log
        )
        try:
            for _ in range(300):
                try:
                    if httpx.get(f"http://127.0.0.1:{found.http}/system").status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield found
        finally:
            process.terminate()
            process.wait(20)
