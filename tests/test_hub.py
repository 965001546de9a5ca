"""A defended model as a folder: written, read, refused; driven by other libraries as it is."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from jernih.classifiers import Classifier, load_classifier
from jernih.data.modify import Prepare
from jernih.defended import Defended
from jernih.detectors import DETECTORS
from jernih.hub import read_defended, write_defended
from jernih.purifiers import PURIFIERS, Ensemble, Purifier
from jernih.randomness import generator, seeded
from jernih.types import Policy
from jernih.validate import InputError

IMAGES = torch.rand(24, 3, 32, 32, generator=generator("hub"))


def model(
    detector: str | None = "jensen-shannon",
    purifier: Purifier | None = None,
    policy: Policy = "restore",
    name: str = "test_efficientnet",
    classes: str = "ab",
) -> Defended:
    with seeded(0):
        classifier = load_classifier(name, classes)
        own = purifier or PURIFIERS.create("conv-autoencoder", widths=[4])
    found = None
    if detector is not None:
        found = DETECTORS.create(detector, classifier=classifier, purifier=own)
        if found.learns:
            labels = torch.arange(24) % 2
            found.fit(lambda: [(IMAGES, labels)], lambda: [(1 - IMAGES, labels)])
        with torch.no_grad():
            found.calibrate(found.eval()(IMAGES), 0.25)
    return Defended(
        classifier, own, found, policy, prepare=Prepare(32, "crop"), card={"title": "mine"}
    ).eval()


@pytest.mark.parametrize("detector", [None, *DETECTORS])
def test_reads_what_it_wrote(detector: str | None, tmp_path: Path) -> None:
    written = model(detector, policy="restore" if detector is None else "reject-flagged")
    write_defended(written, tmp_path)
    read = read_defended(tmp_path)
    ours, theirs = written.inspect(IMAGES), read.inspect(IMAGES)
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.restored, theirs.restored)
    assert ours.actions == theirs.actions
    if detector is not None:
        assert ours.scores is not None
        assert theirs.scores is not None
        assert torch.equal(ours.scores, theirs.scores)
        assert written.detector is not None
        assert read.detector is not None
        assert written.detector.calibration == read.detector.calibration
    assert not read.training
    assert read.prepare is not None
    assert (read.prepare.size, read.prepare.fit, read.policy) == (32, "crop", written.policy)
    assert read.card == {"title": "mine"}
    assert "# mine" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_the_mixin_of_the_hub(tmp_path: Path) -> None:
    written = model()
    written.save_pretrained(tmp_path / "saved")
    names = {file.name for file in (tmp_path / "saved").iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md"}
    read = Defended.from_pretrained(str(tmp_path / "saved"))
    assert torch.equal(read(IMAGES), written(IMAGES))
    read.save_pretrained(tmp_path / "again")
    for name in sorted(names):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "saved" / name).read_bytes()


def test_an_ensemble_needs_no_files_of_its_members(tmp_path: Path) -> None:
    purifier = Ensemble([{"name": "jernih-s", "weights": "jernih-s-imagenet"}, "median"])
    written = model(None, purifier.eval())
    write_defended(written, tmp_path)
    assert torch.equal(read_defended(tmp_path)(IMAGES), written(IMAGES))


def test_code_runs_only_where_it_is_trusted(tmp_path: Path) -> None:
    written = model(None, name="tests.helpers:edge_network")
    write_defended(written, tmp_path)
    with pytest.raises(InputError, match="trust-code"):
        read_defended(tmp_path)
    with pytest.raises(InputError, match="trust-code"):
        Defended.from_pretrained(tmp_path)
    trusted = Defended.from_pretrained(tmp_path, trust_code=True)
    assert torch.equal(trusted(IMAGES), written(IMAGES))


@pytest.mark.parametrize("name", ["os:system", "subprocess:run", "builtins:exec", "evil.pt"])
def test_a_config_cannot_call_what_it_likes(name: str, tmp_path: Path) -> None:
    write_defended(model(None), tmp_path)
    edit(tmp_path, lambda config: config["classifier"].update(name=name))
    with pytest.raises(InputError, match="runs code"):
        read_defended(tmp_path)


def test_a_config_cannot_read_other_files(tmp_path: Path) -> None:
    write_defended(model(None), tmp_path)
    edit(
        tmp_path,
        lambda config: config["classifier"].update(options={"checkpoint_path": "/etc/passwd"}),
    )
    with pytest.raises(InputError, match="checkpoint_path"):
        read_defended(tmp_path)
    edit(tmp_path, lambda config: config["classifier"].update(name="../x.pt", options={}))
    with pytest.raises(InputError, match=r"classifier\.pt in the folder"):
        read_defended(tmp_path, trust_code=True)


def test_a_saved_program_comes_along(tmp_path: Path) -> None:
    with seeded(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        torch.jit.script(network.eval()).save(str(tmp_path / "own.pt"))  # type: ignore[no-untyped-call]
    written = model(None, name=str(tmp_path / "own.pt"))
    write_defended(written, tmp_path / "saved")
    (tmp_path / "own.pt").unlink()
    with pytest.raises(InputError, match="runs code"):
        read_defended(tmp_path / "saved")
    read = read_defended(tmp_path / "saved", trust_code=True)
    assert torch.equal(read(IMAGES), written(IMAGES))


def test_a_network_without_a_name_is_refused(classifier: Classifier, tmp_path: Path) -> None:
    defended = Defended(classifier, PURIFIERS.create("identity"))
    with pytest.raises(InputError, match="factory"):
        write_defended(defended, tmp_path)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    change(config)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.update(format=2), "format"),
        (lambda config: config.update(colour="red"), "colour"),
        (lambda config: config.pop("purifier"), "purifier"),
        (lambda config: config["purifier"].update(name="unett"), "nearest: 'unet'"),
        (lambda config: config["purifier"].update(width=3), "option of purifier"),
        (lambda config: config["classifier"].update(classes=["a", "b", "c"]), "shape"),
        (lambda config: config.update(policy="hope"), "policy"),
        (lambda config: config.update(prepare={"size": 3, "fit": "crop"}), "size"),
        (lambda config: config.update(detector={"name": "mahalanobis"}), "learnt"),
    ],
)
def test_a_damaged_config(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    write_defended(model("jensen-shannon"), tmp_path)
    edit(tmp_path, change)
    with pytest.raises(InputError, match=message):
        read_defended(tmp_path)


def test_damaged_weights(tmp_path: Path) -> None:
    write_defended(model(None), tmp_path)
    with pytest.raises(InputError, match=r"config\.json and model\.safetensors"):
        read_defended(tmp_path / "nowhere")
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    save_file({k: v for k, v in whole.items() if not k.startswith("purifier.")}, file)
    with pytest.raises(InputError, match="lacks"):
        read_defended(tmp_path)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match="whole safetensors"):
        read_defended(tmp_path)
    file.unlink()
    with pytest.raises(InputError, match="existing"):
        read_defended(tmp_path)


LABELS = torch.arange(4)
EPS = 8 / 255


def _foolbox(target: Defended, images: Tensor) -> Tensor:
    from foolbox.attacks import LinfPGD
    from foolbox.models.pytorch import PyTorchModel

    wrapped = PyTorchModel(target, bounds=(0, 1), device="cpu")
    _, made, _ = LinfPGD(steps=3)(wrapped, images, LABELS, epsilons=EPS)
    attacked: Tensor = made
    return attacked


def _torchattacks(target: Defended, images: Tensor) -> Tensor:
    import torchattacks

    attacked: Tensor = torchattacks.PGD(target, eps=EPS, steps=3)(images, LABELS)
    return attacked


def _torchattacks_auto(target: Defended, images: Tensor) -> Tensor:
    import torchattacks

    attack = torchattacks.AutoAttack(target, eps=EPS, n_classes=4)
    attacked: Tensor = attack(images, LABELS)
    return attacked


def _art(target: Defended, images: Tensor) -> Tensor:
    from art.attacks.evasion import FastGradientMethod
    from art.estimators.classification import PyTorchClassifier

    wrapped = PyTorchClassifier(
        target, nn.CrossEntropyLoss(), (3, 32, 32), 4, clip_values=(0, 1), device_type="cpu"
    )
    made = FastGradientMethod(wrapped, eps=EPS).generate(images.numpy(), LABELS.numpy())
    return torch.from_numpy(made)


def _auto_attack(target: Defended, images: Tensor) -> Tensor:
    from jernih.attacks import AutoAttack

    return AutoAttack(EPS)(target, images, LABELS).images


@pytest.mark.parametrize(
    ("library", "drive"),
    [
        ("foolbox", _foolbox),
        ("torchattacks", _torchattacks),
        ("torchattacks", _torchattacks_auto),
        ("art", _art),
        ("jernih", _auto_attack),
    ],
)
@pytest.mark.filterwarnings("ignore")  # theirs, about their own code
def test_other_libraries_attack_it_as_it_is(
    library: str, drive: Callable[[Defended, Tensor], Tensor], tmp_path: Path
) -> None:
    pytest.importorskip(library)
    model(classes="abcd").save_pretrained(tmp_path)
    target = Defended.from_pretrained(tmp_path)
    images = IMAGES[:4]
    attacked = drive(target, images)
    assert attacked.shape == images.shape
    assert float((attacked - images).abs().max()) <= EPS + 1e-6
    loss = nn.CrossEntropyLoss()
    with torch.no_grad():
        assert loss(target(attacked), LABELS) > loss(target(images), LABELS)
