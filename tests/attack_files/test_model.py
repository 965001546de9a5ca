from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from jernih.attack_files import find_model, read_classes
from jernih.classifiers import Classifier, load_classifier, save_classifier
from jernih.storage import write_json
from jernih.validate import InputError
from jernih.weights import write_weights
from tests.helpers import small_run

CLASSES = ("a", "b")


def same(first: Classifier, second: Classifier) -> bool:
    state = second.state_dict()
    return all(torch.equal(value, state[key]) for key, value in first.state_dict().items())


def test_weights_that_jernih_wrote_and_their_card(stripes: Classifier, tmp_path: Path) -> None:
    file = save_classifier(stripes, tmp_path / "mine.safetensors")
    found, prepare = find_model(str(file), ("else",), trust_code=True)
    assert same(found, stripes)
    assert found.classes == CLASSES
    assert (prepare.size, prepare.fit) == (224, "stretch")
    card = {
        "what": "classifier",
        "file": "mine.safetensors",
        "config": {"modify": {"size": 64, "fit": "pad"}},
    }
    write_json(tmp_path / "mine.json", card)
    for model in ("mine.json", "mine.safetensors"):
        found, prepare = find_model(str(tmp_path / model), CLASSES, trust_code=True)
        assert same(found, stripes)
        assert (prepare.size, prepare.fit) == (64, "pad")
    _, prepare = find_model(str(file), CLASSES, size=48, fit="crop", trust_code=True)
    assert (prepare.size, prepare.fit) == (48, "crop")


def test_run_folder_and_config(stripes: Classifier, tmp_path: Path) -> None:
    config = small_run(tmp_path)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    with pytest.raises(InputError, match="jernih model"):
        find_model(str(file), CLASSES)
    run = Path(config.out)
    run.mkdir()
    with pytest.raises(InputError, match="a trained classifier"):
        find_model(str(run), CLASSES)
    save_classifier(stripes, run / "model/classifier/classifier.safetensors")
    (run / "config.yaml").write_text(file.read_text())
    for model in (file, run):
        found, prepare = find_model(str(model), CLASSES)
        assert same(found, stripes)
        assert (prepare.size, prepare.fit) == (32, "stretch")


def test_config_that_names_its_weights(stripes: Classifier, tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "weights.safetensors", stripes.network)
    choice = {"name": "tests.helpers:edge_network", "weights": str(weights)}
    config = small_run(tmp_path, **{"model.classifier": choice})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    found, _ = find_model(str(tmp_path / "config.yaml"), CLASSES)
    assert same(found, stripes)


def test_names_with_weights(tmp_path: Path) -> None:
    made = load_classifier("test_vit", ("x", "y", "z"), seed=3)
    weights = str(write_weights(tmp_path / "vit.safetensors", made.network))
    found, prepare = find_model("test_vit", ("x", "y", "z"), weights=weights)
    assert same(found, made)
    assert prepare.size == 160  # what timm records
    found, _ = find_model("test_vit", CLASSES, weights=weights, named=("p", "q", "r"))
    assert found.classes == ("p", "q", "r")
    with pytest.raises(InputError, match="classes: expected 3 classes, as in the weights; got 2"):
        find_model("test_vit", CLASSES, weights=weights)


def test_own_factory(stripes: Classifier, tmp_path: Path) -> None:
    weights = str(write_weights(tmp_path / "own.safetensors", stripes.network))
    found, prepare = find_model(
        "tests.helpers:edge_network", CLASSES, weights=weights, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    assert same(found, stripes)
    assert found.mean.flatten().tolist() == [0.5] * 3
    assert prepare.size == 224


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("test_vitt", {}, "nearest: 'test_vit'"),
        ("test_vit", {}, "give --weights FILE or --pretrained"),
        ("/no/such.safetensors", {}, "an existing .safetensors file"),
        ("/no/such.pt", {}, "an existing program file"),
        ("/no/such.yaml", {}, "an existing YAML file"),
        ("/no/such.json", {}, "an existing file"),
        ("{card}", {}, "the card of a classifier"),
        ("{file}", {"weights": "more"}, "nothing for a model that has its own; got more"),
        ("{file}", {"named": ("p", "q")}, "classes: expected nothing for a model"),
    ],
)
def test_wrong_models(
    model: str, options: dict[str, Any], message: str, stripes: Classifier, tmp_path: Path
) -> None:
    file = save_classifier(stripes, tmp_path / "mine.safetensors")
    card = write_json(tmp_path / "other.json", {"what": "purifier"})
    with pytest.raises(InputError, match=message):
        find_model(model.format(file=file, card=card), CLASSES, **options)


def test_read_classes(tmp_path: Path) -> None:
    assert read_classes("NORMAL, PNEUMONIA") == ("NORMAL", "PNEUMONIA")
    lines = tmp_path / "names.txt"
    lines.write_text("fish\nbird of prey\n\n")
    assert read_classes(str(lines)) == ("fish", "bird of prey")
    table = tmp_path / "names.csv"
    rows = [f"{n},w{n},name" for n in (10, 2, 1, 0, 3, 4, 5, 6, 7, 8, 9)]
    table.write_text("\n".join(["index,wnid,name", *rows]))
    assert read_classes(str(table)) == tuple(f"w{n}" for n in range(11))
    table.write_text("index,wnid\n0,a\n2,b")
    with pytest.raises(InputError, match="without gaps"):
        read_classes(str(table))
    table.write_text("index,title\n0,a\n1,b")
    with pytest.raises(InputError, match="a column label or"):
        read_classes(str(table))
    with pytest.raises(InputError, match="two or more names"):
        read_classes("NORMAL")
