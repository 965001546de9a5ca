from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jernih.attack_files import AttackJob, read_options
from jernih.attacks import BIM, PGD
from jernih.classifiers import save_classifier
from jernih.validate import InputError
from tests.attack_files.conftest import stripes_classifier


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(save_classifier(stripes_classifier(), tmp_path / "stripes.safetensors"))


def test_by_names_alone(model: str, folder: Path, tmp_path: Path) -> None:
    job = AttackJob(
        model=model, data=str(folder), out=tmp_path / "out", attack="fgsm", eps="51/255", size=32,
        limit=4, trust_code=True,
    )  # fmt: skip
    made = job.run()
    assert made.results["counts"]["fooled"] == 4
    # What was written is data again: as a folder of class folders, and by its manifest.
    for data in (made.folder / "images", made.folder, made.folder / "manifest.csv"):
        out = tmp_path / f"again-{data.name}"
        again = AttackJob(
            model, str(data), out, attack="uniform-noise", eps=0, size=32, trust_code=True
        ).run()
        assert [row.before for row in again.rows] == [row.written for row in made.rows]


def test_attack_with_its_options() -> None:
    def made(**options: Any) -> Any:
        return AttackJob("model", "data", Path("out"), **options).make_attack()

    pgd = made(eps="1/2", norm="l2", options={"steps": 7}, target="a")
    assert isinstance(pgd, PGD)
    assert (pgd.eps, pgd.norm, pgd.steps, pgd.targeted) == (0.5, "l2", 7, True)
    assert made().eps == PGD().eps
    assert made(norm="l1").eps == PGD(norm="l1").eps
    assert isinstance(made(attack="bim", norm="linf"), BIM)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attack": "pgdd"}, "nearest: 'pgd'"),
        ({"attack": "bim", "norm": "l2"}, "norm of attack 'bim': expected one of 'linf'; got 'l2'"),
        ({"norm": "l3"}, "norm of attack 'pgd': expected one of 'linf', 'l2', 'l1'; got 'l3'"),
        ({"eps": "4/0"}, "a number or a fraction such as 4/255"),
        ({"eps": "8"}, r"eps: expected a number in \[0, 1\]"),
        ({"options": {"step": 3}}, "nearest: 'steps'"),
        ({"options": {"steps": 0}}, "steps: expected a whole number"),
        ({"options": {"eps": 0.1}}, "given apart"),
        ({"attack": "deepfool", "target": "a"}, "an attack with a targeted form"),
        ({"file_format": "jpg"}, "format: expected one of 'png', 'png16', 'npy'"),
        ({"fit": "strech"}, "nearest: 'stretch'"),
        ({"device": "gpu"}, "device"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"data": "/no/such/folder"}, "no such folder"),
        ({"model": "no_such_model_at_all"}, "a timm model"),
        ({"trust_code": False}, "edge_network', which runs code"),
    ],
)
def test_refusals_leave_nothing_behind(
    options: dict[str, Any], message: str, model: str, folder: Path, tmp_path: Path
) -> None:
    known: dict[str, Any] = {"model": model, "data": str(folder), "out": tmp_path / "out"}
    known |= {"size": 32, "trust_code": True}
    with pytest.raises(InputError, match=message):
        AttackJob(**{**known, **options}).run()
    assert not (tmp_path / "out").exists()


def test_never_into_the_data(model: str, folder: Path) -> None:
    with pytest.raises(InputError, match="a folder outside the data"):
        AttackJob(model, str(folder), folder / "attacked").run()


def test_read_options() -> None:
    told = ["steps=40", "step_size=1e-3", "random_start=false", "name=a=b", "list=[1, 2]"]
    assert read_options(told) == {
        "steps": 40, "step_size": 1e-3, "random_start": False, "name": "a=b", "list": [1, 2],
    }  # fmt: skip
    for wrong in ("steps", "=3", "steps=[1"):
        with pytest.raises(InputError, match="--set"):
            read_options([wrong])
