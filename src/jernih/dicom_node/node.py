"""The node itself: it takes instances, works on them, and sends what comes of them."""

from __future__ import annotations

import datetime
import errno
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from jernih.answer import Answer, Answerer
from jernih.data.untrusted import UntrustedImages
from jernih.dicom_node.checks import (
    CLASSES,
    KNOWN_OTHERWISE,
    NOT_UNDERSTOOD,
    OUT_OF_RESOURCES,
    SUCCESS,
    refusal_of,
    transfer_syntaxes,
)
from jernih.dicom_node.objects import checksum, report, restored_image, stamped
from jernih.dicom_node.settings import NodeSettings
from jernih.dicom_node.spool import Spool, key_of
from jernih.storage import atomic_path
from jernih.traces import trace_of
from jernih.validate import InputError

log = logging.getLogger("jernih.dicom")

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES)


class DicomNode:
    """A storage node that answers each image with a report and the restored image.

    C-STORE is acknowledged once the instance is on the disk
    (:class:`jernih.dicom_node.spool.Spool`). A second thread asks the model, a third sends the
    results to the peer, again and again until it takes them.

    Args:
        answerer: the defended model.
        settings: where to listen, what to take, where to send.

    Raises:
        InputError: for a spool that cannot be used, and a port that is taken.

    Example:
        >>> with DicomNode(answerer, settings) as node:  # doctest: +SKIP
        ...     print(node.port)
    """

    def __init__(self, answerer: Answerer, settings: NodeSettings) -> None:
        self.answerer = answerer
        self.settings = settings
        self.spool = Spool(settings.spool)
        self.images = UntrustedImages(
            settings.max_pixels, settings.decode_s, settings.decode_mib * 2**20, processes=1
        )
        name = str(answerer.defended.classifier.description.get("name", "classifier"))
        purifier = answerer.defended.purifier.name
        self.model = f"{name} behind {purifier}, {checksum(answerer)}"
        self.port = settings.port
        self._ending = threading.Event()
        self._come = threading.Event()
        self._made = threading.Event()
        self._threads: list[threading.Thread] = []
        self._server: Any = None
        self._lock: Any = None

    def __enter__(self) -> DicomNode:
        """Listen, and work."""
        self._lock = self.spool.locked()
        self._lock.__enter__()
        try:
            self._listen()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        for work in (self._work, self._send):
            thread = threading.Thread(target=work, name=f"jernih-{work.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        """Take nothing more, finish what is being written, and leave the rest in the spool."""
        self._ending.set()
        self._come.set()
        self._made.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join(60)
        self.images.close()
        self._lock.__exit__(None, None, None)

    def _listen(self) -> None:
        settings = self.settings
        entity = AE(ae_title=settings.title)
        for sop_class in CLASSES:
            entity.add_supported_context(sop_class, transfer_syntaxes())
        entity.add_supported_context(Verification)
        entity.require_called_aet = True
        entity.require_calling_aet = list(settings.allow)
        entity.maximum_associations = settings.associations
        entity.network_timeout = settings.idle_s
        entity.maximum_pdu_size = 2**17
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store), (evt.EVT_C_ECHO, lambda _: SUCCESS)]
        address = (settings.host, settings.port)
        try:
            self._server = entity.start_server(address, block=False, evt_handlers=handlers)
        except OSError as error:
            raise InputError("port", "one that is free", settings.port, str(error)) from None
        self.port = int(self._server.server_address[1])

    def _store(self, event: Event) -> int | Dataset:
        """Take an instance; what is returned is the status for its sender."""
        try:
            return self._taken(event)
        except Exception as error:  # else pynetdicom would log what was said about it
            log.error("an instance could not be taken\n%s", trace_of(error))
            return _status(NOT_UNDERSTOOD, "the instance cannot be taken")

    def _taken(self, event: Event) -> int | Dataset:
        request: Any = event.request
        uid = str(request.AffectedSOPInstanceUID)
        mark = key_of(uid)[:8]
        content = event.encoded_dataset()
        refusal = refusal_of(content, str(request.AffectedSOPClassUID), uid, self.settings)
        if refusal is not None:
            log.info("%s refused with 0x%04X: %s", mark, refusal.status, refusal.reason)
            return _status(refusal.status, refusal.reason)
        try:
            taken = self.spool.take(uid, content)
        except OSError as error:
            reason = "no room on the disk" if error.errno in _NO_SPACE else "it cannot be kept"
            log.error("%s refused: %s", mark, error.strerror)
            return _status(OUT_OF_RESOURCES, reason)
        if taken == "other":
            log.info("%s refused: another instance is known under its UID", mark)
            return _status(KNOWN_OTHERWISE, "another instance has this UID")
        log.info("%s taken (%s)", mark, taken)
        if taken == "new":
            self._come.set()
        return SUCCESS

    def _work(self) -> None:
        while not self._ending.is_set():
            self._come.clear()
            waiting = self.spool.waiting()
            if not waiting:
                self._come.wait(5)
                continue
            try:
                self._answer(waiting[: self.settings.batch])
            except OSError as error:  # the disk is full: what was taken waits
                log.error("nothing can be written: %s", error.strerror)
                self._ending.wait(self.settings.retry_s)

    def _answer(self, files: Sequence[Path]) -> None:
        """Ask the model about some instances, and write what comes of them."""
        read, images = [], []
        for file in files:
            try:
                images.append(self.images.read(file, self.answerer.defended.prepare))
                read.append(file)
            except InputError as error:
                self._set_aside(file, str(getattr(error, "reason", "it cannot be read")))
        if not images:
            return
        for file, answer in zip(read, self.answerer.of_prepared(images), strict=True):
            try:
                self._write(file, answer)
            except OSError:
                raise
            except Exception as error:  # attributes that no object can be made with
                log.error("no results of %s\n%s", file.stem[:8], trace_of(error))
                self._set_aside(file, f"no results could be made: {type(error).__name__}")

    def _write(self, file: Path, answer: Answer) -> None:
        source = dcmread(file, stop_before_pixels=True)
        now = datetime.datetime.now()
        made = [report(source, answer, self.model), restored_image(source, answer, self.model)]
        for result, place in zip(made, self.spool.results(file.stem), strict=True):
            if place.is_file():
                continue  # made before the last end; it stays the same object
            with atomic_path(place) as temporary:
                stamped(result, now).save_as(temporary, enforce_file_format=True)
        self.spool.finish(file, len(made))
        log.info("%s classified: %s", file.stem[:8], "flagged" if answer.flagged else "not flagged")
        self._made.set()

    def _set_aside(self, file: Path, reason: str) -> None:
        log.warning("%s set aside: %s", file.stem[:8], reason)
        self.spool.give_up(file, reason)

    def _send(self) -> None:
        wait = self.settings.retry_s
        while not self._ending.is_set():
            self._made.clear()
            files = self.spool.to_send()
            if not files:
                self._made.wait(5)
                continue
            whole = self._sent(files)
            if not all(file.exists() for file in files):  # it takes some: no reason to wait longer
                wait = self.settings.retry_s
            if whole:
                continue
            log.warning("the peer does not take results; the next try is in %.0f s", wait)
            self._ending.wait(wait)
            wait = min(2 * wait, self.settings.retry_most_s)

    def _sent(self, files: Sequence[Path]) -> bool:
        """Send results over one association; whether all were taken or refused for ever."""
        peer = self.settings.peer
        entity = AE(ae_title=self.settings.title)
        entity.add_requested_context(ComprehensiveSRStorage, ExplicitVRLittleEndian)
        entity.add_requested_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 30
        entity.connection_timeout = 10
        link = entity.associate(peer.host, peer.port, ae_title=peer.title)
        if not link.is_established:
            return False
        try:
            for file in files:
                if self._ending.is_set():
                    return True
                if not self._sent_one(link, file):
                    return False
        finally:
            if link.is_established:
                link.release()
        return True

    def _sent_one(self, link: Any, file: Path) -> bool:
        try:
            answer = link.send_c_store(dcmread(file))
        except ValueError:  # the peer took the association, but not this kind of object
            self._set_aside(file, "the peer does not take objects of this kind")
            return True
        except RuntimeError:  # the association ended
            return False
        status = answer.get("Status") if answer else None
        if status is None:
            return False
        if status == SUCCESS or 0xB000 <= status <= 0xBFFF:
            file.unlink()
            log.info("%s sent", file.stem[:8])
            return True
        if status == 0x0122 or 0xA900 <= status <= 0xA9FF or status >= NOT_UNDERSTOOD:
            self._set_aside(file, f"the peer refused it with 0x{status:04X}")
            return True
        return False


def _status(code: int, comment: str) -> Dataset:
    made = Dataset()
    made.Status = code
    made.ErrorComment = comment[:64]
    return made
