"""Which defended model to deploy: runs, packages, hub names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from jernih.defended import Defended
from jernih.pipeline import Pipeline, find_defended
from jernih.randomness import generator
from jernih.validate import InputError
from tests.helpers import small_run

IMAGES = torch.rand(4, 3, 32, 32, generator=generator("find"))


@pytest.mark.parametrize("detector", ["reconstruction-error", "mahalanobis", None])
def test_a_run_without_its_images(detector: str | None, tmp_path: Path) -> None:
    chosen = None if detector is None else {"name": detector}
    pipeline = Pipeline(small_run(tmp_path, **{"model.detector": chosen}))
    made = pipeline.model()
    early = find_defended(tmp_path / "run")  # not assessed yet
    assert torch.equal(early(IMAGES), made(IMAGES))
    pipeline.run()
    shutil.rmtree(tmp_path / "images")
    found = find_defended(tmp_path / "run")
    ours, theirs = made.inspect(IMAGES), found.inspect(IMAGES)
    assert torch.equal(ours.logits, theirs.logits)
    assert ours.actions == theirs.actions
    if ours.scores is not None:
        assert theirs.scores is not None
        assert torch.equal(ours.scores, theirs.scores)
    assert found.prepare is not None
    assert found.prepare.size == 32
    assert found.card["title"] == "stripes"
    threats = {figure["threat"] for figure in found.card["figures"]}
    assert threats == {"no attack", "oblivious fgsm, L∞ ≤ 0.2", "adaptive fgsm, L∞ ≤ 0.2"}
    found.save_pretrained(tmp_path / "packaged")
    again = find_defended(tmp_path / "packaged", trust_code=True)
    assert torch.equal(again(IMAGES), found(IMAGES))
    assert again.card == found.card


def test_what_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="owner/name"):
        find_defended(tmp_path)
    with pytest.raises(InputError, match="owner/name"):
        find_defended("nowhere")
    (tmp_path / "config.yaml").write_text("title: begun\n", encoding="utf-8")
    with pytest.raises(InputError, match="model stage is complete"):
        find_defended(tmp_path)

    def unreachable(*_: Any, **__: Any) -> Defended:
        raise OSError("cannot reach the hub\nat all")

    monkeypatch.setattr(Defended, "from_pretrained", unreachable)
    with pytest.raises(InputError, match=r"cannot reach the hub"):
        find_defended("owner/name")
