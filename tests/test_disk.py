"""Disks that are full and folders that may not be written: one clear line, and nothing is lost."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.helpers import small_run, striped_folder


def mount(*arguments: str) -> int:
    return subprocess.run(["mount", *arguments], check=False).returncode  # noqa: S603, S607


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("a disk of its own cannot be had")
    if mount("-t", "tmpfs", "-o", "size=20k", "tmpfs", str(folder)):
        pytest.skip("a disk of its own cannot be had")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S603, S607


def resize(disk: Path, kilobytes: int) -> None:
    assert mount("-o", f"remount,size={kilobytes}k", str(disk)) == 0


def jernih(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [sys.executable, "-m", "jernih", *arguments], capture_output=True, text=True, check=False
    )


def says_that_it_is_full(found: subprocess.CompletedProcess[str]) -> None:
    assert found.returncode == 1, found.stderr
    assert "No space left on device" in found.stderr
    assert "Traceback" not in found.stderr + found.stdout


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*.png"))
    }


def test_purify_on_a_full_disk_goes_on_when_there_is_room(disk: Path, tmp_path: Path) -> None:
    photos = striped_folder(tmp_path / "photos", each=12, size=40)
    says_that_it_is_full(jernih("purify", str(photos), "--out", str(disk / "out")))
    early = digests(disk)
    assert 0 < len(early) < 24
    resize(disk, 2000)
    assert jernih("purify", str(photos), "--out", str(disk / "out")).returncode == 0
    late = digests(disk)
    assert len(late) == 24
    assert early.items() <= late.items()
    assert jernih("purify", str(photos), "--out", str(tmp_path / "whole")).returncode == 0
    assert digests(tmp_path / "whole") == {
        name.removeprefix("out/"): digest for name, digest in late.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [20, 60, 150, 300, 600, 1000, 1500])
def test_a_run_on_a_full_disk_goes_on_when_there_is_room(
    disk: Path, tmp_path: Path, kilobytes: int
) -> None:
    config = small_run(tmp_path)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    resize(disk, kilobytes)
    place = f"out={disk / 'run'}"
    says_that_it_is_full(jernih("run", str(file), "--set", place))
    resize(disk, 100_000)
    again = jernih("run", str(file), "--set", place)
    assert again.returncode == 0, again.stderr
    assert (disk / "run" / "assess" / "report.html").is_file()


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    photos = striped_folder(tmp_path / "photos", each=1, size=24)
    locked = tmp_path / "locked"
    locked.mkdir()
    try:
        if os.geteuid():
            locked.chmod(0o500)
        elif mount("-t", "tmpfs", "-o", "ro", "tmpfs", str(locked)):
            pytest.skip("nothing is read-only for root here")
        for arguments in (
            ["purify", str(photos), "--out", str(locked / "out")],
            ["run", "configs/phantom.yaml", "--set", f"out={locked / 'run'}"],
        ):
            found = jernih(*arguments)
            assert found.returncode in (1, 2), found.stderr
            assert "Read-only file system" in found.stderr or "Permission denied" in found.stderr
            assert "Traceback" not in found.stderr
    finally:
        if not os.geteuid():
            subprocess.run(["umount", "--lazy", str(locked)], check=False)  # noqa: S603, S607
