"""Loading classifiers by name, from code and from files."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from jernih.classifiers import load_classifier, restore_classifier, save_classifier
from jernih.data.images import read_image
from jernih.data.modify import Prepare
from jernih.purifiers import restore_purifier
from jernih.validate import InputError
from jernih.weights import write_weights
from tests.conftest import TinyNet

ABC = ["a", "b", "c"]


def factory(width: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return TinyNet(width)


def not_a_network() -> int:
    return 3


def test_timm_model_with_its_normalisation() -> None:
    classifier = load_classifier("mobilenetv2_035", ABC)
    settings = timm.get_pretrained_cfg("mobilenetv2_035")
    assert settings is not None
    torch.testing.assert_close(classifier.mean.flatten(), torch.tensor(settings.mean))
    assert classifier(torch.rand(2, 3, 64, 64)).shape == (2, 3)
    assert not classifier.training


def test_initial_weights_follow_the_seed() -> None:
    state = torch.get_rng_state()
    first, second, other = (load_classifier("resnet10t", ABC, seed=s) for s in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    assert all(same)
    assert not all(
        torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True)
    )


def test_one_logit_head(images: Tensor) -> None:
    classifier = load_classifier("test_efficientnet", ["no", "yes"], one_logit=True)
    logits = classifier(images)
    assert logits.shape == (6, 2)
    assert bool((logits[:, 0] == 0).all())


def test_own_factory(images: Tensor) -> None:
    name = "tests.classifiers.test_load:factory"
    classifier = load_classifier(name, ABC, options={"width": 3}, mean=(0.5,) * 3)
    torch.testing.assert_close(classifier(images), factory().eval()(images - 0.5))


def test_torchscript_and_exported_programs(tmp_path: Path, images: Tensor) -> None:
    network = factory().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(network, images)  # type: ignore[no-untyped-call]
        torch.jit.save(scripted, tmp_path / "net.pt")
        batch = torch.export.Dim("batch", min=1, max=64)
        exported = torch.export.export(network, (images,), dynamic_shapes=({0: batch},))
        torch.export.save(exported, tmp_path / "net.pt2")
    for file in ("net.pt", "net.pt2"):
        classifier = load_classifier(str(tmp_path / file), ABC)
        torch.testing.assert_close(classifier(images), network(images))
        torch.testing.assert_close(classifier.frozen()(images), network(images))
        assert not any(m.training for m in classifier.modules())


def test_save_and_restore(tmp_path: Path, images: Tensor) -> None:
    images = images.repeat(1, 1, 2, 2)
    classifier = load_classifier("mobilenetv2_035", ["no", "yes"], one_logit=True, seed=3)
    path = save_classifier(classifier, tmp_path / "c.safetensors")
    restored = restore_classifier(path)
    assert restored.classes == ("no", "yes")
    assert torch.equal(restored(images), classifier(images))


def touch(path: str) -> nn.Module:
    """What a file should not be able to call."""
    Path(path).touch()
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 2))


def test_a_weights_file_runs_no_code_unless_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    card = {
        "name": f"{__name__}:touch", "classes": ["a", "b"], "options": {"path": "touched"},
    }  # fmt: skip
    module = nn.ModuleDict({"network": touch("before")})
    file = write_weights(tmp_path / "stranger.safetensors", module, card)
    with pytest.raises(InputError, match="runs code"):
        restore_classifier(file)
    assert not Path("touched").exists()
    assert restore_classifier(file, trust_code=True).classes == ("a", "b")
    assert Path("touched").exists()  # so the check above could have failed


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "mine.pt2"}, "runs code"),
        ({"options": {"checkpoint_path": "other.ckpt"}}, "none that reads other files"),
        ({"weights": "/etc/passwd"}, "a file that save_classifier wrote"),
        ({"pretrained": True}, "a file that save_classifier wrote"),
    ],
)
def test_a_weights_file_reads_no_other(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    card = {"name": "resnet10t", "classes": ["a", "b"], **change}
    file = write_weights(tmp_path / "stranger.safetensors", nn.Linear(1, 1), card)
    with pytest.raises(InputError, match=told):
        restore_classifier(file)


@pytest.mark.parametrize("text", ["{", "", '{"name": "x"', "[" * 100_000, "[1]", "\x00"])
def test_a_damaged_card_is_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    save_file({"x": torch.zeros(1)}, file, metadata={"jernih": text})
    for restore in (restore_classifier, restore_purifier):
        with pytest.raises(InputError, match=r"weights .*c\.safetensors"):
            restore(file)


def test_head_of_another_size_keeps_initial_values(tmp_path: Path) -> None:
    big = timm.create_model("resnet10t", num_classes=7)
    save_file(dict(big.state_dict()), tmp_path / "w.safetensors")
    small = load_classifier("resnet10t", ABC, weights=tmp_path / "w.safetensors")
    assert torch.equal(
        small.network.get_parameter("conv1.0.weight"), big.state_dict()["conv1.0.weight"]
    )
    assert small.network.get_parameter("fc.weight").shape == (3, 512)


def test_bad_names_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nearest: 'mobilenetv2_140'"):
        load_classifier("mobilenetv2_10", ABC)
    with pytest.raises(InputError, match=r"importable module 'no\.such'"):
        load_classifier("no.such:thing", ABC)
    with pytest.raises(InputError, match="nearest: 'factory'"):
        load_classifier("tests.classifiers.test_load:factoryy", ABC)
    with pytest.raises(InputError, match=r"torch\.nn\.Module; got int"):
        load_classifier("tests.classifiers.test_load:not_a_network", ABC)
    with pytest.raises(InputError, match="options that the factory takes"):
        load_classifier("tests.classifiers.test_load:factory", ABC, options={"depth": 1})
    with pytest.raises(InputError, match="existing program file"):
        load_classifier(str(tmp_path / "none.pt"), ABC)
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(InputError, match="TorchScript or exported program"):
        load_classifier(str(tmp_path / "junk.pt"), ABC)
    with pytest.raises(InputError, match=r"existing \.safetensors file"):
        load_classifier("resnet10t", ABC, weights=tmp_path / "none.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match="whole safetensors file"):
        load_classifier("resnet10t", ABC, weights=tmp_path / "junk.safetensors")
    (tmp_path / "pickle.pth").write_bytes(b"junk")
    with pytest.raises(InputError, match="pickled checkpoints can run code"):
        load_classifier("resnet10t", ABC, weights=tmp_path / "pickle.pth")
    save_file({"other": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="one that lacks: conv1"):
        load_classifier("resnet10t", ABC, weights=tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="two classes"):
        load_classifier("resnet10t", ABC, one_logit=True)


def test_torchvision_weights_of_mobilenet_v2(tmp_path: Path) -> None:
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    original = mobilenet_v2(num_classes=3).eval()
    for module in original.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features) * 0.1
            module.running_var = torch.rand(module.num_features) + 0.5
    save_file(dict(original.state_dict()), tmp_path / "w.safetensors")
    ours = load_classifier(
        "mobilenetv2_100", ABC, weights=tmp_path / "w.safetensors", mean=(0.0,) * 3, std=(1.0,) * 3
    )
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), original(images), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_clean_accuracy_on_the_imagenet_sample(shared: Path) -> None:
    with (shared / "data/imagenet-classes.csv").open(encoding="utf-8") as file:
        wnids = [row["wnid"] for row in csv.DictReader(file)]
    classifier = load_classifier(
        "mobilenetv2_100", wnids, weights=shared / "weights/mobilenet_v2_imagenet.safetensors"
    ).frozen()
    prepare = Prepare(224, "crop")
    files = sorted((shared / "data/imagenet-sample").glob("*.JPEG"))
    right = 0
    for start in range(0, len(files), 50):
        batch = torch.stack([prepare(read_image(f)) for f in files[start : start + 50]])
        labels = torch.tensor([wnids.index(f.name[:9]) for f in files[start : start + 50]])
        right += int((classifier(batch).argmax(1) == labels).sum())
    assert len(files) == 700
    assert right >= 0.82 * 700


def test_same_head_refuses_weights_for_other_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one_logit, told in ((False, "3 classes"), (True, "1 logit for two classes")):
        stored = ["a", "b"] if one_logit else ["a", "b", "c"]
        made = load_classifier("test_vit", stored, one_logit=one_logit)
        weights = write_weights(tmp_path / "vit.safetensors", made.network)
        load_classifier("test_vit", ["a", "b"], weights=weights)
        with pytest.raises(InputError, match=f"classes: expected {told}, as in the weights; got 2"):
            load_classifier("test_vit", ["a", "b"], weights=weights, same_head=True)
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: create(*a, **{**k, "pretrained": 0}))
    load_classifier("test_vit", ["a", "b"], pretrained=True)
    with pytest.raises(InputError, match="classes: expected 1000 classes"):
        load_classifier("test_vit", ["a", "b"], pretrained=True, same_head=True)
