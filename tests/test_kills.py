"""The quick form of benchmarks/kills.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jernih.storage import read_json

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "kills.py"


@pytest.mark.skipif(sys.platform == "win32", reason="it forks")
def test_killed_work_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: S603
        [sys.executable, str(SCRIPT), "--kills", "3", "--seed", "2", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    rows = read_json(tmp_path / "kills.json")["rows"]
    assert sum(row["killed"] for row in rows) == 3
    assert all(row["rerun"] and not row["differing"] for row in rows)
