"""The simulation of benchmarks/data_path.py where pencil and paper know the outcome."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> Any:
    for needed in ("fsspec", "simpy"):
        pytest.importorskip(needed)
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("data_path")


@pytest.fixture
def cost(path: Any) -> Any:
    return path.Cost(read=0.01, restore=0.05, write=0.04, bytes_in=1e5, bytes_out=2e5)


def seconds(path: Any, cost: Any, site: Any, images: int = 1000, **options: Any) -> float:
    found = path.simulated(cost, site, images, 100, **{"jitter": 0, **options})
    assert found["worker_hours"] == pytest.approx(found["hours"] * site.workers)
    return float(found["hours"] * 3600)


def test_one_worker_does_all_one_after_the_other(path: Any, cost: Any) -> None:
    # 0.1 s of work an image, and 0.3 MB through 100 MB a second
    assert seconds(path, cost, path.Site(1)) == pytest.approx(1000 * (0.1 + 0.003))


def test_ten_shards_by_four_workers_take_three_turns(path: Any, cost: Any) -> None:
    assert seconds(path, cost, path.Site(4)) == pytest.approx(3 * 100 * 0.103)
    assert seconds(path, cost, path.Site(10)) == pytest.approx(100 * 0.103)


def test_a_narrow_network_bounds_all(path: Any, cost: Any) -> None:
    site = path.Site(50, network=1e6, stream=1e6)
    found = path.simulated(cost, site, 10_000, 100, jitter=0)
    paper = path.planned(cost, site, 10_000)
    assert max(paper, key=lambda name: paper[name]) == "writing"
    # Reading and writing each have the whole network; at the ends one of them waits for the other.
    assert found["hours"] == pytest.approx(paper["writing"], rel=0.03)
    assert found["share_waiting"] > 0.5


def test_deaths_cost_time_and_nothing_else(path: Any, cost: Any) -> None:
    calm = path.simulated(cost, path.Site(4), 20_000, 100)
    deadly = path.simulated(cost, path.Site(4, life=100, restart=1), 20_000, 100)
    assert calm["shards_again"] == 0
    assert deadly["shards_again"] > 5
    assert deadly["share_lost"] > 0
    assert deadly["hours"] > calm["hours"]
