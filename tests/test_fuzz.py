"""The quick form of benchmarks/fuzz.py."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> Any:
    for needed in ("fastapi", "fsspec"):
        pytest.importorskip(needed)
    monkeypatch.syspath_prepend(str(FOLDER))  # its processes import it by its name
    return importlib.import_module("fuzz")


@pytest.mark.filterwarnings("ignore")  # the server's, in its thread
def test_garbage_is_refused_in_words(fuzz: Any) -> None:
    rows = fuzz.run(1500, seed=1, workers=1)
    targets = [row for row in rows.values() if isinstance(row, dict)]
    assert sum(row["inputs"] for row in targets) == 1500
    for row in targets:
        assert row["failed"] == row["died"] == 0, row["kinds"]
        assert row["slowest_ms"] < 5000
        assert row["refused"] > row["accepted"] / 10
    assert rows["HTTP"]["alive"] in ("200", "400", "404", "415", "422", "closed")
    assert rows["files made by pickles"] == rows["files made elsewhere"] == 0


def test_a_pickle_that_is_run_would_be_seen(fuzz: Any, tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(fuzz.Trap(tmp_path / "canary")))  # noqa: S301 - what it is for
    assert (tmp_path / "canary").is_dir()
