"""The quick form of benchmarks/memory.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jernih.storage import read_json

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "memory.py"


@pytest.mark.skipif(sys.platform != "linux", reason="kilobytes are Linux's unit of peaks")
def test_eight_times_the_images_take_no_more_memory(tmp_path: Path) -> None:
    counts = ["--counts", "500", "4000"]
    subprocess.run(  # noqa: S603
        [sys.executable, str(SCRIPT), *counts, "--out", str(tmp_path)], check=True, timeout=400
    )
    few, many = read_json(tmp_path / "memory.json")["rows"]
    assert (few["n"], many["n"]) == (500, 4000)
    assert many["peak_mib"] < 1.1 * few["peak_mib"]
    # Linear but for what is done once.
    assert many["processor_seconds"] < 1.3 * 8 * few["processor_seconds"]
