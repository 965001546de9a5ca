"""Several processes at one run give what one gives."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jernih.assess import Assessment
from jernih.data.modify import EpochSampler
from jernih.storage import read_json, sha256_file
from jernih.validate import InputError
from jernih.world import World, current_world, in_shares, join_world

ROOT = Path(__file__).parent.parent
MODELS = ("sample", "explore", "modify", "model")


def start(processes: int, root: Path, out: Path) -> None:
    """Run the script in so many processes, as a user would start them."""
    script = [str(ROOT / "tests" / "world_script.py"), str(root), str(out)]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603
        [sys.executable, *(launch if processes > 1 else []), *script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process."""
    root = tmp_path_factory.mktemp("world")
    start(1, root, root / "run-1")
    return root


def compared(first: Any, second: Any, where: str = "") -> None:
    """All numbers agree to 1e-6, and all else is equal."""
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for name in first:
            compared(first[name], second[name], f"{where}.{name}")
    elif isinstance(first, list):
        assert len(first) == len(second), where
        for number, (one, other) in enumerate(zip(first, second, strict=True)):
            compared(one, other, f"{where}[{number}]")
    elif isinstance(first, float) or isinstance(second, float):
        np.testing.assert_allclose(first, second, atol=1e-6, rtol=1e-6, err_msg=where)
    else:
        assert first == second, where


def together(processes: int, root: Path) -> None:
    """So many processes assess the models of one, and find what it found."""
    one, many = root / "run-1", root / f"run-{processes}"
    for stage in MODELS:
        shutil.copytree(one / stage, many / stage)
    start(processes, root, many)
    first, second = (Assessment.load(run / "assess" / "assessment.json") for run in (one, many))
    ours, theirs = first.to_dict(), second.to_dict()
    for values in (ours, theirs):
        values.pop("environment")
    compared(ours, theirs)
    for name in ("survey-1.json", "detection-1.json"):
        compared(*(read_json(run / "assess" / "surveys" / name) for run in (one, many)))
    compared(*(read_json(run / "certify" / "sigma-0.1" / "certify.json") for run in (one, many)))
    tables = sorted(path.name for path in (one / "assess" / "tables").iterdir())
    assert tables == sorted(path.name for path in (many / "assess" / "tables").iterdir())
    images = sorted((one / "purified").rglob("*.png"))
    assert images
    for image in images:
        assert sha256_file(image) == sha256_file(many / image.relative_to(one))
    attacked = [p for p in sorted((one / "attacked").rglob("*")) if p.is_file()]
    attacked = [path for path in attacked if not path.name.startswith(".")]
    assert len(attacked) == 14 + 2  # with the manifest and the record
    for path in attacked:
        assert sha256_file(path) == sha256_file(many / path.relative_to(one)), path
    journals = list((many / "attacked").glob(".finished*.jsonl"))
    assert len(journals) == processes  # each has done some
    facts = [read_json(many / f"facts-{rank}.json") for rank in range(processes)]
    alone = read_json(one / "facts-0.json")
    for found in facts:
        assert found["size"] == processes
        assert found["written"] == alone["written"]
        assert found["results"] == [k * k for k in range(7)]
        assert found["told"] == 0
        assert found["first"] == [list(range(7))[rank::processes] for rank in range(processes)]


def test_two_processes_find_what_one_finds(alone: Path) -> None:
    together(2, alone)


@pytest.mark.slow
def test_four_processes_find_what_one_finds(alone: Path) -> None:
    together(4, alone)


@pytest.mark.slow
def test_training_together(alone: Path) -> None:
    """Two processes train from the first stage on, and the outcome is a model that works."""
    start(2, alone, alone / "trained")
    found = Assessment.load(alone / "trained" / "assess" / "assessment.json")
    assert found.condition("clean").accuracy.value > 0.9
    history = (alone / "trained" / "model" / "classifier" / "history.csv").read_text()
    assert len(history.splitlines()) == 4
    assert not (alone / "trained" / "model" / "classifier" / "checkpoints").exists()


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 7, 8])
def test_each_image_is_in_one_share(size: int, count: int) -> None:
    samplers = [EpochSampler(count, 3, None, rank, size) for rank in range(size)]
    shares = [list(sampler) for sampler in samplers]
    assert {len(share) for share in shares} == {len(samplers[0])}
    seen = [index for share in shares for _, index in share]
    assert set(seen) == set(range(count))
    assert len(seen) - count == -count % size  # the few that come once more
    whole = list(EpochSampler(count, 3))
    assert whole[::size] == shares[0]


def test_alone_there_is_nobody_to_wait_for() -> None:
    world = join_world()
    assert world == current_world() == World(0, 1)
    world.meet()
    assert world.told("so") == "so"
    assert world.gathered(3) == [3]
    with world.leader_first():
        pass
    assert list(in_shares([1, 2], lambda: lambda k: -k, kept=False)) == [-1, -2]


def test_results_have_to_be_kept_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jernih.world.current_world", lambda: World(1, 2))
    with pytest.raises(InputError, match="share"):
        list(in_shares([1, 2], lambda: lambda k: k, kept=False))
