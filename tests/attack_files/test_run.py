"""The whole way: attacked, written, read again, asked again; and stopped on the way."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from jernih import __version__
from jernih.attack_files import AttackedFiles, AttackFolder, Format, Images, attack_files
from jernih.attack_files.formats import read
from jernih.attacks import FGSM, PGD, Attack, DeepFool, UniformNoise
from jernih.classifiers import Classifier
from jernih.data.images import read_image
from jernih.data.modify import Prepare
from jernih.data.sources import Item
from jernih.storage import read_json, sha256_file
from jernih.types import Threat
from jernih.validate import InputError
from tests.attack_files.conftest import stripes_classifier

ATTACK = PGD("20/255", steps=3)


def attacked(
    images: Images,
    out: Path,
    attack: Attack = ATTACK,
    classifier: Classifier | None = None,
    **options: Any,
) -> AttackedFiles:
    return attack_files(
        classifier or stripes_classifier(),
        images,
        attack,
        AttackFolder(out),
        **{"prepare": Prepare(32), "batch_size": 3, **options},
    )


def content(out: Path) -> dict[str, bytes]:
    """All files but the journal and the lock."""
    files = [f for f in out.rglob("*") if f.is_file() and not f.name.startswith(".")]
    return {str(f.relative_to(out)): f.read_bytes() for f in files}


@pytest.mark.parametrize("file_format", ["png", "png16", "npy"])
def test_rows_say_what_the_files_hold(
    images: Images, stripes: Classifier, tmp_path: Path, file_format: Format
) -> None:
    out = tmp_path / "out"
    made = attacked(images, out, DeepFool(norm="linf"), file_format=file_format)
    assert len(made.rows) == 8
    for row, item in zip(made.rows, images.items, strict=True):
        clean, again = read_image(item.path), read(out / row.path, file_format)
        predicted = [stripes.classes[int(stripes(i[None]).argmax())] for i in (clean, again)]
        assert (row.before, row.written) == tuple(predicted)
        assert row.source == str(item.path)
        assert row.label == item.label
        assert row.success == (row.after != row.label)
        assert row.success_written == (row.written != row.label)
        assert row.linf_written == pytest.approx(float((again - clean).abs().max()), abs=1e-7)
        assert row.distance_written == row.linf_written
        assert row.sha256 == sha256_file(out / row.path)
        assert row.distance > 0
    with (out / "manifest.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [line["path"] for line in table] == [row.path for row in made.rows]
    assert table[0]["attack"] == "deepfool"
    assert table[0]["norm"] == "linf"
    assert json.loads(table[0]["options"])["overshoot"] == 0.02
    assert [line["distance"] for line in table] == [str(row.distance) for row in made.rows]


def test_rounding_undoes_what_lies_at_the_boundary(images: Images, tmp_path: Path) -> None:
    survived = {}
    for file_format in ("png", "npy"):
        attack = DeepFool(norm="linf", overshoot=0.0)
        made = attacked(images, tmp_path / file_format, attack, file_format=file_format)
        counts = made.results["counts"]
        assert counts["fooled"] == 8
        survived[file_format] = counts["survived"]
        assert counts["survived"] == sum(r.success and r.success_written for r in made.rows)
        told = made.results["warnings"]
        assert any("undone by writing" in t for t in told) == (counts["survived"] < 8)
    assert survived["png"] < survived["npy"] == 8


def test_rounding_past_the_bound_is_told(images: Images, tmp_path: Path) -> None:
    made = attacked(images, tmp_path / "odd", FGSM(4.7 / 255))
    written = made.results["written"]
    assert written["images_past_bound"] == 8
    assert written["past_bound"] == pytest.approx(0.3 / 255, rel=1e-3)
    assert written["max_linf"] == pytest.approx(5 / 255, abs=1e-6)
    # Whole grey levels around images of whole grey levels are kept.
    made = attacked(images, tmp_path / "whole", FGSM("4/255"))
    assert made.results["written"]["images_past_bound"] == 0
    assert made.results["written"]["max_linf"] == pytest.approx(4 / 255, abs=1e-6)


def test_record(images: Images, tmp_path: Path) -> None:
    made = attacked(images, tmp_path / "out", seed=3)
    record = read_json(tmp_path / "out" / "attack.json")
    settings = record["settings"]
    assert Threat(**record["threat"]) == Threat("linf", ATTACK.eps, "oblivious")
    assert settings["options"]["steps"] == 3
    assert settings["seed"] == 3
    assert settings["jernih"] == __version__
    assert settings["reference"] == "arXiv:1706.06083"
    assert record["versions"]["torch"] == str(torch.__version__)
    assert record["counts"] == made.results["counts"]
    assert record["rates"]["fooled"]["method"] == "wilson"
    assert record["rates"]["right_before"]["n"] == 8


def interrupted(after: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done >= after:
            raise KeyboardInterrupt

    return progress


def test_interrupted_goes_on_and_ends_the_same(images: Images, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    attacked(images, whole)
    for after in (3, 6):
        with pytest.raises(KeyboardInterrupt):
            attacked(images, parts, progress=interrupted(after))
    assert not (parts / "manifest.csv").exists()
    kept = {file: file.stat().st_mtime_ns for file in parts.rglob("*.png")}
    assert len(kept) == 6
    (parts / "images/b/.p1-b-xyz.tmp.png").write_text("killed while writing")
    attacked(images, parts)
    assert all(file.stat().st_mtime_ns == when for file, when in kept.items())
    assert content(parts) == content(whole)


def test_lost_and_changed_images_are_made_again(images: Images, tmp_path: Path) -> None:
    out = tmp_path / "out"
    attacked(images, out)
    before = content(out)
    (out / "images/a/p1-a.png").unlink()
    (out / "images/b/p2-b.png").write_bytes(b"changed")
    (out / "manifest.csv").unlink()
    attacked(images, out)
    assert content(out) == before


def test_a_finished_attack_is_not_done_again(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = attacked(images, tmp_path / "out")

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(PGD, "run", never)
    seen: list[tuple[int, int]] = []
    assert attacked(images, tmp_path / "out", progress=lambda *p: seen.append(p)) == first
    assert seen == [(3, 8), (6, 8), (8, 8)]


@pytest.mark.parametrize(
    ("attack", "options", "told"),
    [
        (PGD("21/255", steps=3), {}, "eps"),
        (PGD("20/255", steps=4), {}, r"options\.steps 3 \(now 4\)"),
        (ATTACK, {"seed": 1}, r"seed 0 \(now 1\)"),
        (ATTACK, {"prepare": Prepare(48)}, r"prepare\.size 32 \(now 48\)"),
        (ATTACK, {"file_format": "npy"}, r"format png \(now npy\)"),
        (ATTACK, {"batch_size": 4}, "batch_size"),
    ],
)
def test_other_settings_are_refused(
    images: Images, tmp_path: Path, attack: Attack, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        attacked(images, tmp_path / "out", progress=interrupted(3))
    with pytest.raises(InputError, match=told):
        attacked(images, tmp_path / "out", attack, **options)


def test_other_weights_and_other_images_are_refused(images: Images, tmp_path: Path) -> None:
    attacked(images, tmp_path / "out")
    other = stripes_classifier()
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    with pytest.raises(InputError, match=r"model\.weights"):
        attacked(images, tmp_path / "out", classifier=other)
    images.items[0].path.write_bytes(images.items[1].path.read_bytes())
    with pytest.raises(InputError, match=r"data\.files"):
        attacked(images, tmp_path / "out")


def test_unreadable_images_are_left_out_and_told(images: Images, tmp_path: Path) -> None:
    bad = images.items[4].path
    bad.write_bytes(bad.read_bytes()[:200])
    made = attacked(images, tmp_path / "out")
    assert len(made.rows) == 7
    assert list(made.unreadable) == [str(bad)]
    assert made.results["counts"]["unreadable"] == 1
    assert attacked(images, tmp_path / "out") == made
    for item in images.items:
        item.path.write_text("no image")
    with pytest.raises(InputError, match="at least one readable image; got 8 unreadable"):
        attacked(images, tmp_path / "none")


def test_targeted(images: Images, tmp_path: Path) -> None:
    made = attacked(images, tmp_path / "out", FGSM(0.2, targeted=True), target="b")
    assert {row.label for row in made.rows} == {"a"}
    assert {row.target for row in made.rows} == {"b"}
    assert all(row.success == (row.after == "b") for row in made.rows)
    assert made.results["counts"]["fooled"] == 4
    with pytest.raises(InputError, match="one of 'a', 'b'"):
        attacked(images, tmp_path / "x", FGSM(0.2, targeted=True), target="c")
    with pytest.raises(InputError, match="a target for this attack"):
        attacked(images, tmp_path / "x", FGSM(0.2, targeted=True))
    with pytest.raises(InputError, match="none for this attack"):
        attacked(images, tmp_path / "x", target="b")


def test_paths_are_apart_and_inside(images: Images, tmp_path: Path) -> None:
    first = images.items[0].path
    for name in ("p.png", "P.png", "q/p.png"):
        (first.parent / name).parent.mkdir(exist_ok=True)
        (first.parent / name).write_bytes(first.read_bytes())
    items = tuple(Item(first.parent / n, "../a") for n in ("P.png", "p.png", "q/p.png"))
    model = Classifier(stripes_classifier().network, ["../a", "b"]).eval()
    made = attacked(Images(items, ("../a", "b"), {}), tmp_path / "out", classifier=model)
    names = ["P.png", "p-2.png", "p-3.png"]
    assert [row.path for row in made.rows] == [f"images/_.._a/{name}" for name in names]


def test_labels_that_the_model_does_not_know(images: Images, tmp_path: Path) -> None:
    other = Classifier(stripes_classifier().network, ["across", "along"]).eval()
    with pytest.raises(InputError, match=r"classes of the model \(across, along\); got 'a'"):
        attacked(images, tmp_path / "out", classifier=other)


def test_refusals(images: Images, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nearest: 'png'"):
        attacked(images, tmp_path / "out", file_format="pngg")
    with pytest.raises(InputError, match="evaluation mode"):
        attacked(images, tmp_path / "out", classifier=stripes_classifier().train())
    assert not (tmp_path / "out").exists()


def test_a_model_without_gradients(images: Images, tmp_path: Path) -> None:
    class Deaf(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = stripes_classifier().network(pixels).detach()
            return logits

    deaf = Classifier(Deaf(), ["a", "b"]).eval()
    with pytest.raises(InputError, match="one that needs no gradients"):
        attacked(images, tmp_path / "out", classifier=deaf)
    made = attacked(images, tmp_path / "noise", UniformNoise("8/255"), classifier=deaf)
    assert made.results["counts"]["fooled"] == 0


def test_a_model_that_guesses_is_warned_of(images: Images, tmp_path: Path) -> None:
    swapped = Classifier(stripes_classifier().network, ["b", "a"]).eval()
    made = attacked(images, tmp_path / "out", classifier=swapped)
    assert made.results["rates"]["fooled"] is None
    assert "no better than guessing" in made.results["warnings"][0]
