"""The DICOM node with thousands of instances, while its peer is cut off and both are killed.

    python benchmarks/dicom_load.py --instances 10000 --out benchmarks/results

A peer that keeps what it gets, the node (`jernih dicom-node` with a small model) and senders run on
this machine, on loopback alone. While the instances come, the peer is killed (SIGKILL) and comes
back several times, and now and then it keeps an object and hangs up before it says so; the node is
killed and started again; some instances are sent twice. In the end every instance that was
acknowledged has to have exactly one report and one restored image at the peer; what came there
twice has to be the same object, byte for byte; and the spool has to be empty. Bounded in time; it
stops by itself.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from jernih.storage import write_json

SENDERS = 3
TWICE = 0.05
"""Share of instances that are sent a second time."""
DROPPED = 0.01
"""Share of objects that the peer keeps without saying so."""


def peer(port: int, folder: Path) -> None:
    """Keep what comes, until killed."""
    from pynetdicom import AE, evt
    from pynetdicom.sop_class import ComprehensiveSRStorage, SecondaryCaptureImageStorage

    chance = random.Random(os.getpid())  # noqa: S311 - which answers get lost

    def keep(event: Any) -> int:
        content = event.encoded_dataset(include_meta=False)
        uid = str(event.request.AffectedSOPInstanceUID)
        digest = hashlib.sha256(content).hexdigest()
        data = event.dataset
        source = str(data.SourceImageSequence[0].ReferencedSOPInstanceUID) if (
            "SourceImageSequence" in data
        ) else str(
            data.CurrentRequestedProcedureEvidenceSequence[0]
            .ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        )  # fmt: skip
        told = {"uid": uid, "sha256": digest, "kind": str(data.Modality), "source": source}
        name = f"{time.monotonic_ns()}-{threading.get_ident()}"
        (folder / f".{name}").write_text(json.dumps(told))
        (folder / f".{name}").replace(folder / f"{name}.json")
        if chance.random() < DROPPED:
            event.assoc.abort()
        return 0x0000

    entity = AE(ae_title="PEER")
    entity.add_supported_context(ComprehensiveSRStorage)
    entity.add_supported_context(SecondaryCaptureImageStorage)
    entity.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, keep)])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def instance(number: int) -> Any:
    """A small radiograph of an invented patient."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = ComputedRadiographyImageStorage
    made.SOPInstanceUID = f"1.2.826.0.1.3680043.10.1.{number + 1}"
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.StudyInstanceUID = f"1.2.826.0.1.3680043.10.2.{number // 4 + 1}"
    made.SeriesInstanceUID = f"1.2.826.0.1.3680043.10.3.{number // 2 + 1}"
    made.PatientName, made.PatientID, made.Modality = f"Invented^P{number}", f"P{number}", "CR"
    made.StudyDate, made.StudyTime, made.AccessionNumber = "20260101", "120000", ""
    made.PatientBirthDate, made.PatientSex, made.StudyID = "19700101", "O", "1"
    made.ReferringPhysicianName, made.SeriesNumber, made.InstanceNumber = "", 1, number % 2 + 1
    made.Rows = made.Columns = 32
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    pixels = np.random.default_rng(number).integers(0, 4096, (32, 32), dtype=np.uint16)
    made.PixelData = pixels.tobytes()
    return made


class Sender(threading.Thread):
    """Sends every so manyth instance until it is acknowledged."""

    def __init__(self, port: int, numbers: list[int]) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.numbers = numbers
        self.acknowledged: set[int] = set()
        self.statuses: Counter[str] = Counter()

    def run(self) -> None:
        from pynetdicom import AE

        waiting = list(reversed(self.numbers))
        while waiting:
            entity = AE(ae_title="SENDER")
            made = instance(0)
            entity.add_requested_context(made.SOPClassUID, made.file_meta.TransferSyntaxUID)
            entity.dimse_timeout = entity.acse_timeout = entity.network_timeout = 20
            link = entity.associate("127.0.0.1", self.port, ae_title="JERNIH")
            if not link.is_established:
                time.sleep(0.5)
                continue
            while waiting and link.is_established:
                try:
                    answer = link.send_c_store(instance(waiting[-1]))
                except RuntimeError:
                    break
                status = answer.get("Status")
                self.statuses["none" if status is None else f"0x{status:04X}"] += 1
                if status != 0:
                    time.sleep(0.2)
                    continue
                self.acknowledged.add(waiting.pop())
            if link.is_established:
                link.release()


def resident(process: int) -> float:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Scene:
    """The node and its peer, as processes that are killed and come back."""

    def __init__(self, root: Path) -> None:
        from jernih.classifiers import load_classifier
        from jernih.data.modify import Prepare
        from jernih.defended import Defended
        from jernih.hub import write_defended
        from jernih.purifiers import PURIFIERS

        classifier = load_classifier("test_efficientnet", ["NORMAL", "PNEUMONIA"])
        purifier = PURIFIERS.create("jpeg", quality=60).eval()
        defended = Defended(classifier, purifier, prepare=Prepare(32)).eval()
        write_defended(defended, root / "model")
        self.root = root
        self.received = root / "received"
        self.received.mkdir()
        self.port, self.peer_port = free_port(), free_port()
        self.peer: Any = None
        self.node: Any = None

    def start_peer(self) -> None:
        command = [sys.executable, __file__, "--peer", str(self.peer_port), str(self.received)]
        self.peer = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603

    def start_node(self) -> None:
        command = [
            sys.executable, "-m", "jernih", "dicom-node", str(self.root / "model"), "--port",
            str(self.port), "--spool", str(self.root / "spool"), "--device", "cpu",
            "--peer", f"PEER@127.0.0.1:{self.peer_port}", "--batch", "32",
        ]  # fmt: skip
        self.node = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603

    def kill(self, process: Any) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def backlog(self) -> tuple[int, int]:
        return tuple(  # type: ignore[return-value]
            len(list((self.root / "spool" / name).glob("*.dcm")))
            for name in ("incoming", "outgoing")
        )


def measure(count: int, root: Path, cuts: int, minutes: float) -> dict[str, Any]:
    scene = Scene(root)
    chance = random.Random(0)  # noqa: S311 - which are sent twice
    scene.start_peer()
    scene.start_node()
    senders = []
    for first in range(SENDERS):
        own = range(first, count, SENDERS)
        numbers = [n for k in own for n in [k] * (1 + (chance.random() < TWICE))]
        senders.append(Sender(scene.port, numbers))
    sent = sum(len(sender.numbers) for sender in senders)
    start = time.monotonic()
    limit = start + 60 * minutes
    for sender in senders:
        sender.start()
    memory: list[float] = []
    peer_kills = node_kills = 0
    marks = [count * (k + 1) // (cuts + 1) for k in range(cuts)]
    while any(sender.is_alive() for sender in senders) and time.monotonic() < limit:
        time.sleep(0.5)
        memory.append(resident(scene.node.pid))
        done = sum(len(sender.acknowledged) for sender in senders)
        if marks and done >= marks[0]:
            marks.pop(0)
            scene.kill(scene.peer)
            peer_kills += 1
            time.sleep(3)
            if peer_kills % 2 == 0:
                scene.kill(scene.node)
                node_kills += 1
                scene.start_node()
            scene.start_peer()
            print(f"{done} acknowledged; backlog {scene.backlog()}", flush=True)
    taken = time.monotonic() - start
    print(f"all acknowledged after {taken:.0f} s; backlog {scene.backlog()}", flush=True)
    while sum(scene.backlog()) and time.monotonic() < limit:
        time.sleep(1)
        memory.append(resident(scene.node.pid))
    finished = time.monotonic() - start
    backlog = scene.backlog()
    scene.node.send_signal(signal.SIGTERM)
    scene.node.wait(60)
    scene.kill(scene.peer)
    acknowledged = set().union(*(sender.acknowledged for sender in senders))
    found = judged(scene.received, acknowledged)
    return {
        "instances": count, "sent": sent, "acknowledged": len(acknowledged),
        "statuses": dict(sum((sender.statuses for sender in senders), Counter())),
        "peer_kills": peer_kills, "node_kills": node_kills,
        "seconds_until_acknowledged": taken, "seconds_until_delivered": finished,
        "left_in_spool": backlog,
        "failed": len(list((root / "spool" / "failed").glob("*.json"))),
        "node_mib": {"peak": max(memory), "end": memory[-1]},
        **found,
    }  # fmt: skip


def judged(folder: Path, acknowledged: set[int]) -> dict[str, int]:
    """What the peer has: how much, how often, and whether it is the same each time."""
    uids = {f"1.2.826.0.1.3680043.10.1.{number + 1}" for number in acknowledged}
    objects: dict[tuple[str, str], dict[str, set[str]]] = {}
    deliveries = 0
    for file in folder.glob("[!.]*.json"):
        told = json.loads(file.read_text())
        deliveries += 1
        kind = "SR" if told["kind"] == "SR" else "image"
        held = objects.setdefault((told["source"], kind), {})
        held.setdefault(told["uid"], set()).add(told["sha256"])
    return {
        "deliveries": deliveries,
        "missing": sum((uid, kind) not in objects for uid in uids for kind in ("SR", "image")),
        "delivered_again": deliveries - sum(len(held) for held in objects.values()),
        "different_objects": sum(len(held) > 1 for held in objects.values()),
        "different_bytes": sum(len(d) > 1 for held in objects.values() for d in held.values()),
        "of_nobody": sum(source not in uids for source, _ in objects),
    }


def main() -> None:
    if sys.argv[1:2] == ["--peer"]:
        peer(int(sys.argv[2]), Path(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--cuts", type=int, default=6, help="how often the peer is cut off")
    parser.add_argument("--minutes", type=float, default=60, help="longest")
    parser.add_argument("--out", type=Path, help="folder for dicom_load.json")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="jernih-dicom-load-") as folder:
        found = measure(arguments.instances, Path(folder), arguments.cuts, arguments.minutes)
    print(json.dumps(found, indent=1))
    if arguments.out:
        machine = {"cores": os.cpu_count(), "python": platform.python_version()}
        write_json(arguments.out / "dicom_load.json", {**found, "machine": machine})


if __name__ == "__main__":
    main()
