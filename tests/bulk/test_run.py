"""Archives through Ray: the same whatever the number of workers, and after an interruption."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from jernih.assess import AssessmentPlan
from jernih.assess.plan import SurveyPlan
from jernih.assess.survey import survey
from jernih.attacks import FGSM
from jernih.bulk import find_shards, purify_archive, survey_archive
from jernih.bulk.archives import read_shard
from jernih.classifiers import load_classifier
from jernih.defended import Defended
from jernih.hub import write_defended
from jernih.purifiers import restore_purifier
from jernih.purify_files import restore_any_size
from jernih.storage import fingerprint, sha256_file
from jernih.validate import InputError
from tests.bulk.test_archives import PICTURES, PNGS, write_tar

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,  # Ray takes its time to start
    pytest.mark.filterwarnings("ignore"),  # its own, about its processes
]


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=40)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of five images, of which one is broken and one has no label."""
    folder = tmp_path_factory.mktemp("archive")
    for shard in range(3):
        members: dict[str, bytes] = {}
        for number, png in enumerate(PNGS):
            members[f"{number}.png"] = png if (shard, number) != (1, 2) else png[:50]
            if (shard, number) != (2, 0):
                members[f"{number}.cls"] = str(number % 2).encode()
        write_tar(folder / f"s{shard}.tar", members)
    return folder


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_file(p) for p in folder.rglob("*") if p.is_file()}


def test_restored_archives_do_not_depend_on_workers(archive: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    one = purify_archive(str(archive), str(tmp_path / "one"), progress=lambda *at: seen.append(at))
    two = purify_archive(str(archive), str(tmp_path / "two"), workers=2)
    assert one == two
    assert (one.shards, one.kept, one.images) == (3, 0, 14)
    assert list(one.unreadable) == ["s1.tar: 2"]
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert files(tmp_path / "one") == files(tmp_path / "two")
    purifier = restore_purifier("jernih-s-imagenet")
    (shard, *_) = find_shards(str(tmp_path / "one" / "*.tar"))
    for entry, picture in zip(read_shard(shard), PICTURES, strict=True):
        eight_bits = (picture * 255).round() / 255
        expected = restore_any_size(purifier, eight_bits)
        torch.testing.assert_close(entry.image(), expected, atol=1.01 / 510, rtol=0)


def test_goes_on_with_what_is_lacking(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    purify_archive(str(archive), str(out))
    whole = files(out)
    (out / "_jernih" / "s1.tar.json").unlink()
    (out / "s1.tar").write_bytes(b"half")
    again = purify_archive(str(archive), str(out))
    assert (again.kept, again.images) == (2, 14)
    assert files(out) == whole
    with pytest.raises(InputError, match="same settings"):
        purify_archive(str(archive), str(out), "jernih-s-chest-xray")


def test_does_a_shard_again_that_has_changed(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("a", "b"):
        write_tar(source / f"{name}.tar", {"0.png": PNGS[0]})
    purify_archive(str(source), str(out))
    write_tar(source / "b.tar", {"0.png": PNGS[0], "1.png": PNGS[1]})
    again = purify_archive(str(source), str(out))
    assert (again.kept, again.images) == (1, 3)


def test_a_store_that_fails_is_no_damaged_shard(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shard = out / "s1.tar"
    # A folder in the way of the file that the shard is first written to.
    Path(f"{shard}.{fingerprint(str(shard))[:8]}.tmp").mkdir(parents=True)
    with pytest.raises(OSError, match=r"shard s1\.tar"):
        purify_archive(str(archive), str(out))


class Labelled(Dataset[tuple[Tensor, int, int]]):
    """The images of the first shard, which all are labelled."""

    def __len__(self) -> int:
        return len(PICTURES)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        from jernih.data.modify import Prepare

        return Prepare(32)((PICTURES[index] * 255).round() / 255), index % 2, index


def test_a_survey_of_an_archive(archive: Path, tmp_path: Path) -> None:
    from jernih.data.modify import Prepare

    classifier = load_classifier("test_efficientnet", ["even", "odd"])
    purifier = restore_purifier("jernih-s-imagenet")
    defended = Defended(classifier, purifier, prepare=Prepare(32)).eval()
    write_defended(defended, tmp_path / "model")
    plan = SurveyPlan("bulk", AssessmentPlan(FGSM(), (0.02, 0.05), ("oblivious", "adaptive"), 2))
    model = str(tmp_path / "model")
    found, done = survey_archive(str(archive), str(tmp_path / "1"), model, plan)
    again, _ = survey_archive(str(archive), str(tmp_path / "2"), model, plan, workers=2)
    assert found == again
    assert found.n == 13
    assert sorted(done.unreadable) == ["s1.tar: 2", "s2.tar: 0"]
    alone, _ = survey_archive(str(archive / "s0.tar"), str(tmp_path / "3"), model, plan)
    expected = survey(classifier, {"main": purifier}, Labelled(), plan)
    for ours, theirs in zip(alone.rows, expected.rows, strict=True):
        assert (ours.purifier, ours.threat) == (theirs.purifier, theirs.threat)
        assert ours.accuracy == theirs.accuracy
    led = replace(plan, labels="predicted")
    out = str(tmp_path / "3")  # what was found there with true labels is not taken for these
    with pytest.raises(InputError, match="the same settings"):
        survey_archive(str(archive / "s0.tar"), out, model, led)
    alone, _ = survey_archive(str(archive / "s0.tar"), str(tmp_path / "4"), model, led)
    expected = survey(classifier, {"main": purifier}, Labelled(), led)
    assert [row.accuracy for row in alone.rows] == [row.accuracy for row in expected.rows]
    assert alone.attack["labels"] == "predicted"
    assert np.isfinite(found.rows[0].accuracy.value)


def test_what_is_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="workers"):
        purify_archive(str(archive), str(tmp_path / "out"), workers=0)
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "s.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(InputError, match=r"s\.tar.*whole tar"):
        purify_archive(str(bad), str(tmp_path / "out"))
    assert not (tmp_path / "out" / "s.tar").exists()
