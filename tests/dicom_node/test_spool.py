"""The spool loses nothing, whenever it is cut off."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from jernih.dicom_node.spool import Spool, key_of
from jernih.storage import read_json
from jernih.validate import InputError


def test_an_instance_from_its_coming_to_its_end(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert spool.take("1.2.3", b"content") == "new"
    assert spool.take("1.2.3", b"content") == "known"
    assert spool.take("1.2.3", b"another") == "other"
    (file,) = spool.waiting()
    assert file.read_bytes() == b"content"
    assert spool.to_send() == []
    for place in spool.results(file.stem):
        place.write_bytes(b"result")
    assert spool.to_send() == []  # not before the record says that all are written
    spool.finish(file, 2)
    assert spool.waiting() == []
    assert [p.name for p in spool.to_send()] == [f"{key_of('1.2.3')}-{k}.dcm" for k in (1, 2)]
    assert spool.take("1.2.3", b"content") == "known"
    assert spool.take("1.2.3", b"another") == "other"


def test_an_end_between_record_and_removal(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.take("1.2.3", b"content")
    (file,) = spool.waiting()
    spool.finish(file, 2)
    file.write_bytes(b"content")  # as if it had not been removed
    assert Spool(tmp_path).waiting() == []
    assert not file.exists()


def test_what_is_given_up_is_kept_with_its_reason(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.take("1.2.3", b"content")
    (file,) = spool.waiting()
    spool.give_up(file, "it has no pixels")
    assert spool.waiting() == []
    assert (tmp_path / "failed" / file.name).read_bytes() == b"content"
    assert read_json(tmp_path / "failed" / f"{file.stem}.json") == {"reason": "it has no pixels"}
    assert spool.take("1.2.3", b"content") == "known"


def test_a_full_disk_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            spool.take("1.2.3", b"content")
    assert list((tmp_path / "incoming").iterdir()) == []
    assert spool.take("1.2.3", b"content") == "new"


def test_one_node_a_spool(tmp_path: Path) -> None:
    with Spool(tmp_path).locked(), pytest.raises(InputError, match="no other node"):
        Spool(tmp_path).locked().__enter__()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="spool"):
        Spool(tmp_path / "file")
