"""Defended models in ONNX: ONNX Runtime against the model itself, and what has to be refused."""

from __future__ import annotations

import importlib
import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from jernih.classifiers import Classifier, load_classifier
from jernih.data.modify import Prepare
from jernih.defended import Defended
from jernih.detectors import DETECTORS
from jernih.export import OnnxDefended, export_onnx, graph, write
from jernih.export.shuffles import transpose_shuffles
from jernih.purifiers import PURIFIERS, Purifier, restore_purifier
from jernih.randomness import generator, seeded
from jernih.types import Policy
from jernih.validate import InputError
from tests.conftest import tiny_classifier
from tests.detectors.test_contract import sources
from tests.purifiers.test_contract import SMALL
from tests.test_cli import error_of, jernih_command

__all__ = ["jernih_command"]

POLICIES: tuple[Policy, ...] = ("restore", "restore-flagged", "reject-flagged")
CANNOT = ("jpeg", "total-variation", "wavelet")
ASKS_FOR_GRADIENTS = "gradient-alignment"
WRITTEN = [name for name in DETECTORS.names() if name != ASKS_FOR_GRADIENTS]
IMAGES = torch.rand(24, 3, 32, 32, generator=generator("export"))


class Two(nn.Module):
    """Logits from one pixel alone."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        level = images[:, 0, 16, 16] - 0.5
        return torch.stack([level, -level], 1) * self.scale


def autoencoder() -> Purifier:
    with seeded("autoencoder"):
        return PURIFIERS.create("conv-autoencoder", widths=(8,)).eval()


def model(
    detector: str | None = None,
    policy: Policy = "restore",
    purifier: Purifier | None = None,
    classifier: Classifier | None = None,
    **options: Any,
) -> Defended:
    """A small model whose detector, if any, flags about half of the images."""
    classifier = classifier or tiny_classifier()
    purifier = purifier or autoencoder()
    made = None
    if detector is not None:
        made = DETECTORS.create(detector, classifier=classifier, purifier=purifier).eval()
        if made.learns:
            made.fit(*sources(classifier))
        with torch.no_grad():
            made.calibrate(made(IMAGES[12:]), fpr=0.5)
    options = {"prepare": Prepare(32, "crop"), **options}
    return Defended(classifier, purifier, made, policy, **options).eval()


def answers(path: Path, images: Tensor) -> dict[str, np.ndarray]:
    """What ONNX Runtime says, asked without Jernih."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images.numpy()}), strict=True))


def same(path: Path, defended: Defended, images: Tensor) -> dict[str, np.ndarray]:
    """Check a file's answers against the model's, and return them."""
    found, expected = answers(path, images), defended.inspect(images)
    scale = max(1.0, float(expected.logits.abs().max()))
    np.testing.assert_allclose(found["logits"], expected.logits, rtol=0, atol=1e-4 * scale)
    shares = expected.logits.softmax(1)
    np.testing.assert_allclose(found["probabilities"], shares, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found["restored"], expected.restored, rtol=0, atol=1e-4)
    assert list(found) == list(graph.OUTPUTS)[: len(found)]
    if expected.scores is None:
        assert "suspicion" not in found
    else:
        widest = float(expected.scores.abs().max())
        np.testing.assert_allclose(
            found["suspicion"], expected.scores, rtol=0, atol=1e-4 * (widest or 1)
        )
    if expected.flagged is None:
        assert "flagged" not in found
    else:
        assert found["flagged"].dtype == np.bool_
        np.testing.assert_array_equal(found["flagged"], expected.flagged)
    return found


def check(detector: str | None, policy: Policy, path: Path) -> None:
    trained = detector in (None, "jensen-shannon")  # the others have a quicker one
    defended = model(detector, policy, restore_purifier("jernih-s-imagenet") if trained else None)
    made = export_onnx(defended, path)
    flags = [same(path, defended, IMAGES[:count]).get("flagged") for count in (1, 3, 12)]
    assert made.parity["n"] == 8
    if policy == "restore-flagged":
        seen = flags[-1]
        assert seen is not None
        assert 0 < seen.sum() < len(seen)
        bare = defended.classifier(IMAGES[:12]).detach().numpy()
        found = answers(path, IMAGES[:12])["logits"]
        np.testing.assert_allclose(found[~seen], bare[~seen], rtol=0, atol=1e-4)
        assert np.abs(found[seen] - bare[seen]).max() > 1e-4


@pytest.mark.parametrize(
    ("detector", "policy"),
    [(None, "restore")] + [(name, POLICIES[place % 3]) for place, name in enumerate(WRITTEN)],
)
def test_every_detector(detector: str | None, policy: Policy, tmp_path: Path) -> None:
    check(detector, policy, tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("detector", WRITTEN)
def test_every_detector_and_policy(detector: str, policy: Policy, tmp_path: Path) -> None:
    check(detector, policy, tmp_path / "model.onnx")


@pytest.mark.parametrize("name", [name for name in PURIFIERS.names() if name not in CANNOT])
def test_every_purifier_that_is_tensor_operations(name: str, tmp_path: Path) -> None:
    with seeded("purifier", name):
        purifier = PURIFIERS.create(name, **SMALL.get(name, {})).eval()
    if name == "unet":  # it starts as the identity
        nn.init.normal_(purifier.get_parameter("leave.weight"), std=0.1)
    proto = graph.to_onnx(
        Defended(Classifier(Two(), ["a", "b"]), purifier).eval().frozen(),
        IMAGES[:2],
        opset=18,
        dynamic_batch=True,
    )
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    for count in (1, 5):
        restored = session.run(["restored"], {"images": IMAGES[:count].numpy()})[0]
        with torch.no_grad():
            expected = purifier(IMAGES[:count]).numpy()
        np.testing.assert_allclose(restored, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CANNOT)
def test_a_purifier_that_onnx_cannot_express(name: str, tmp_path: Path) -> None:
    defended = model(purifier=PURIFIERS.create(name).eval())
    with pytest.raises(InputError, match=f"^purifier: .* ONNX can express; got '{name}'$"):
        export_onnx(defended, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_other_parts_that_onnx_cannot_express(tmp_path: Path) -> None:
    members = ({"name": "bit-depth", "bits": 3}, "identity")
    drawn = PURIFIERS.create("ensemble", members=members, how="random").eval()
    with pytest.raises(InputError, match=r"purifier: .* got a random ensemble"):
        export_onnx(model(purifier=drawn), tmp_path / "model.onnx")

    class Looks(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor(json.loads(json.dumps(images.mean((2, 3))[:, :2].tolist())))

    looks = Classifier(Looks(), ["a", "b"]).eval()
    with pytest.raises(InputError, match=r"^classifier: .* ONNX can express; got its network \("):
        export_onnx(model(classifier=looks), tmp_path / "model.onnx")
    network = tiny_classifier().network.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises another form
        script = torch.jit.trace(network, IMAGES[:2])  # type: ignore[no-untyped-call]
    with pytest.raises(InputError, match=r"classifier: .* TorchScript \(torch.export"):
        export_onnx(model(classifier=Classifier(script, "abc").eval()), tmp_path / "model.onnx")
    with pytest.raises(InputError, match=rf"^detector: .* got '{ASKS_FOR_GRADIENTS}'$"):
        export_onnx(model(ASKS_FOR_GRADIENTS), tmp_path / "model.onnx")
    squeezer = DETECTORS.create(
        "feature-squeezing",
        classifier=(classifier := tiny_classifier()),
        purifier=(purifier := PURIFIERS.create("identity").eval()),
        squeezers=["jpeg"],
    )
    with pytest.raises(InputError, match=r"^detector: .* got 'feature-squeezing'$"):
        export_onnx(
            Defended(classifier, purifier, squeezer).eval(), tmp_path / "model.onnx", size=32
        )
    assert list(tmp_path.iterdir()) == []


def test_a_threshold_is_not_needed(tmp_path: Path) -> None:
    defended = model("reconstruction-error")
    assert defended.detector is not None
    defended.detector.calibration = None
    export_onnx(defended, tmp_path / "model.onnx")
    found = same(tmp_path / "model.onnx", defended, IMAGES[:3])
    assert list(found) == ["logits", "probabilities", "restored", "suspicion"]
    assert OnnxDefended(tmp_path / "model.onnx").threshold is None
    defended.policy = "reject-flagged"
    with pytest.raises(InputError, match="calibrated threshold"):
        export_onnx(defended, tmp_path / "other.onnx")


def test_mobilenet_v2_with_one_logit(tmp_path: Path) -> None:
    with seeded(0):
        classifier = load_classifier("mobilenetv2_100", ["well", "ill"], one_logit=True)
    purifier = restore_purifier("jernih-s-imagenet")
    defended = model("reconstruction-error", "restore-flagged", purifier, classifier)
    export_onnx(defended, tmp_path / "model.onnx")
    found = same(tmp_path / "model.onnx", defended, IMAGES[:3])
    assert np.all(found["logits"][:, 0] == 0)
    proto = onnx.load(tmp_path / "model.onnx")
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}


def test_nearly_equal_and_extreme_answers(tmp_path: Path) -> None:
    """The exporter's own translations lose the first and have no number for the second."""

    for scale, temperature in ((1.0, 10.0), (1e5, 1.0)):
        classifier = Classifier(Two(scale), ["a", "b"]).eval()
        purifier = PURIFIERS.create("bit-depth", bits=4).eval()
        detector = DETECTORS.create(
            "jensen-shannon", classifier=classifier, purifier=purifier, temperature=temperature
        )
        defended = Defended(classifier, purifier, detector).eval()
        path = export_onnx(defended, tmp_path / "model.onnx", size=32).path
        scores = answers(path, IMAGES)["suspicion"]
        logits = [classifier(seen).double().numpy() for seen in (IMAGES, purifier(IMAGES))]
        p, q = (np.exp(z / temperature - np.logaddexp.reduce(z / temperature, 1)[:, None])
                for z in logits)  # fmt: skip
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [np.where(r > 0, r * np.log(2 * r / (p + q)), 0) for r in (p, q)]
        expected = sum(part.sum(1) for part in parts) / 2
        assert np.isfinite(scores).all()
        np.testing.assert_allclose(scores, expected, rtol=2e-3, atol=1e-12)


def test_pixel_shuffles_become_transposed_convolutions(tmp_path: Path) -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = nn.Sequential(nn.Conv2d(3, 45, 1, bias=False), nn.PixelShuffle(3))
            self.inner = nn.Sequential(
                nn.Sequential(nn.Conv2d(5, 8, 1), nn.PixelShuffle(2)), nn.ReLU()
            )
            self.wide = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.PixelShuffle(2))
            self.grouped = nn.Sequential(nn.Conv2d(2, 8, 1, groups=2), nn.PixelShuffle(2))

        def forward(self, images: Tensor) -> Tensor:
            out: Tensor = self.grouped(self.wide(self.inner(self.plain(images))))
            return out

    with seeded(0), torch.no_grad():
        network = Grouped().eval()
        expected = network(IMAGES[:2, :, :5, :7])
        changed = transpose_shuffles(network)
        assert changed is network
        left = [type(one) for one in network.modules() if isinstance(one, nn.PixelShuffle)]
        assert len(left) == 2  # of kernels and groups that are another matter
        torch.testing.assert_close(network(IMAGES[:2, :, :5, :7]), expected)
    defended = model(purifier=restore_purifier("jernih-s-imagenet"))
    path = export_onnx(defended, tmp_path / "model.onnx").path
    operations = [node.op_type for node in onnx.load(path).graph.node]
    assert operations.count("ConvTranspose") == 3
    assert "DepthToSpace" not in operations


def test_a_purifier_in_bfloat16_is_written_in_float32(tmp_path: Path) -> None:
    reduced = restore_purifier("jernih-s-imagenet", precision="bfloat16")
    defended = model("reconstruction-error", purifier=reduced)
    path = export_onnx(defended, tmp_path / "exact.onnx").path
    assert reduced.describe()["precision"] == "bfloat16"
    assert OnnxDefended(path).metadata["purifier"]["precision"] == "float32"
    exact = restore_purifier("jernih-s-imagenet")
    found = answers(path, IMAGES)["restored"]
    np.testing.assert_allclose(found, exact(IMAGES).detach(), rtol=0, atol=1e-4)
    assert np.abs(found - reduced(IMAGES).detach().numpy()).max() > 1e-3


def test_one_image_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    defended = model()
    made = export_onnx(defended, path, dynamic_batch=False, size=40, opset=20)
    assert (made.size, made.parity["n"]) == (40, 2)
    reader = OnnxDefended(path)
    assert (reader.batch, reader.size) == (1, (40, 40))
    assert onnx.load(path).opset_import[0].version == 20
    one = torch.rand(1, 3, 40, 40, generator=generator("one"))
    same(path, defended, one)
    with pytest.raises(InputError, match=r"shape \(1, 3, 40, 40\); got \(2, 3, 40, 40\)"):
        reader(np.zeros((2, 3, 40, 40), np.float32))

    class Alone(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            if len(images) != 1:
                raise RuntimeError("one image, please")
            return images.mean((2, 3))

    alone = model(classifier=Classifier(Alone(), "abc").eval())
    with pytest.raises(InputError, match="dynamic_batch: expected False"):
        export_onnx(alone, tmp_path / "other.onnx")
    export_onnx(alone, tmp_path / "other.onnx", dynamic_batch=False)


def test_the_file_says_what_one_needs_to_use_it(tmp_path: Path) -> None:
    card = {"title": "stripes", "figures": [{"n": 3, "psnr": math.inf, "accuracy": 0.5}]}
    defended = model("jensen-shannon", "reject-flagged", card=card)
    before = {name: value.clone() for name, value in defended.state_dict().items()}
    path = tmp_path / "deep" / "model.onnx"
    made = export_onnx(defended, path)
    assert all(torch.equal(value, before[name]) for name, value in defended.state_dict().items())
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    assert made.bytes == path.stat().st_size
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.producer_name == "jernih"
    said = {item.key: json.loads(item.value) for item in proto.metadata_props}
    assert said["classes"] == ["class0", "class1", "class2"]
    assert said["preprocessing"]["size"] == 32
    assert said["preprocessing"]["fit"] == "crop"
    assert said["preprocessing"]["range"] == [0, 1]
    assert said["preprocessing"]["channels"] == "RGB"
    assert said["policy"] == "reject-flagged"
    assert defended.detector is not None
    assert said["calibration"]["threshold"] == defended.detector.threshold
    assert said["calibration"]["fpr"] == 0.5
    assert said["purifier"] == {"name": "conv-autoencoder", "widths": [8]}
    assert said["detector"] == {"name": "jensen-shannon", "temperature": 10.0}
    assert said["card"]["figures"] == [{"n": 3, "psnr": None, "accuracy": 0.5}]
    assert said["parity"] == made.parity
    assert said["cost"] is None
    reader = OnnxDefended(path, threads=1)
    assert reader.classes == defended.classifier.classes
    assert (reader.size, reader.batch, reader.policy) == ((32, 32), None, "reject-flagged")
    assert reader.threshold == defended.detector.threshold
    assert reader.metadata == said
    assert reader.prepare is not None
    photo = torch.rand(3, 50, 70, generator=generator("photo"))
    seen = reader.prepare(photo)
    assert defended.prepare is not None
    assert torch.equal(seen, defended.prepare(photo))
    ours = answers(path, seen[None])
    for name, value in reader(seen[None].numpy()).items():
        np.testing.assert_allclose(value, ours[name], rtol=1e-5, atol=1e-6)


def test_nothing_of_the_machine_is_in_the_file(tmp_path: Path) -> None:
    export_onnx(model("prediction-change"), tmp_path / "model.onnx")
    content = (tmp_path / "model.onnx").read_bytes()
    for word in (str(Path.home()), str(Path(graph.__file__).parents[1]), "site-packages"):
        assert word.encode() not in content


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (IMAGES[:1], "NumPy array"),
        (IMAGES[:1].double().numpy(), "float32"),
        ((IMAGES[:1] * 255).byte().numpy(), "float32"),
        (IMAGES[0].numpy(), r"shape \(N, 3, 32, 32\)"),
        (IMAGES[:1, :, :31].numpy(), r"shape \(N, 3, 32, 32\)"),
        (IMAGES[:0].numpy(), r"shape \(N, 3, 32, 32\)"),
        (IMAGES[:1].numpy() * 3, r"\[0, 1\]"),
        (IMAGES[:1].numpy() * np.float32("nan"), r"\[0, 1\]"),
    ],
)
def test_the_reader_refuses(images: Any, reason: str, exported: Path) -> None:
    with pytest.raises(InputError, match=f"^images: .*{reason}"):
        OnnxDefended(exported)(images)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(model(), tmp_path_factory.mktemp("onnx") / "model.onnx").path


def test_files_that_are_no_model(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="existing file"):
        OnnxDefended(tmp_path / "none.onnx")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(exported.read_bytes()[:-1000])
    with pytest.raises(InputError, match="that ONNX Runtime can run"):
        OnnxDefended(cut)
    proto = onnx.load(exported)
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "foreign.onnx")
    with pytest.raises(InputError, match="one that jernih export wrote"):
        OnnxDefended(tmp_path / "foreign.onnx")


def test_arguments_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    defended, path = model(), tmp_path / "model.onnx"
    for options, reason in (
        ({"opset": 17}, "opset: expected 18 to"),
        ({"precision": "int4"}, "precision"),
        ({"precision": "int8"}, "calibrate: expected images for int8; got none"),
        ({"calibrate": tmp_path}, "calibrate: expected none for float32"),
        ({"size": 4}, "size: expected a whole number from 8"),
    ):
        with pytest.raises(InputError, match=reason):
            export_onnx(defended, path, **options)
    for wrong in (tmp_path, tmp_path / "model.pt"):
        with pytest.raises(InputError, match=r"ends in \.onnx"):
            export_onnx(defended, wrong)
    with pytest.raises(InputError, match=r"size: .* got none"):
        export_onnx(model(prepare=None), path)
    with pytest.raises(InputError, match="evaluation mode"):
        export_onnx(model().train(), path)
    narrow = PURIFIERS.create("conv-autoencoder", widths=(4, 8)).eval()
    with pytest.raises(InputError, match="multiples of 4"):
        export_onnx(model(purifier=narrow), path, size=30)
    with monkeypatch.context() as small:
        small.setattr(write, "LARGEST", 1000)
        with pytest.raises(InputError, match=r"at most 2 GB of weights; got 0\.0 GB"):
            export_onnx(defended, path)
    monkeypatch.setattr(importlib, "import_module", _missing)
    with pytest.raises(InputError, match=r"pip install 'jernih\[onnx\]' installs; got no onnx"):
        export_onnx(defended, path)
    assert list(tmp_path.iterdir()) == []


def _missing(name: str) -> Any:
    raise ImportError(name)


def _scaled(proto: Any) -> None:
    """Weights of one convolution of the classifier, one per cent larger."""
    for tensor in proto.graph.initializer:
        if "classifier" in tensor.name and tensor.name.endswith("conv2.weight"):
            value = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value * np.float32(1.01), tensor.name))
            return
    raise AssertionError("no such weight")


def _swapped(proto: Any) -> None:
    """Logits and probabilities under each other's names."""
    first, second = proto.graph.output[0], proto.graph.output[1]
    first.name, second.name = second.name, first.name


def _other_threshold(proto: Any) -> None:
    """Everything flagged."""
    node = next(node for node in proto.graph.node if node.output[0] == "flagged")
    low = onnx.numpy_helper.from_array(np.array(-1, np.float32), "low")
    proto.graph.initializer.append(low)
    node.input[1] = "low"


@pytest.mark.parametrize("tamper", [_scaled, _swapped, _other_threshold])
def test_a_wrong_graph_is_noticed(
    tamper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = graph.to_onnx

    def wrong(*arguments: Any, **options: Any) -> Any:
        proto = convert(*arguments, **options)
        tamper(proto)
        return proto

    monkeypatch.setattr(write, "to_onnx", wrong)
    path = tmp_path / "model.onnx"
    path.write_text("the old one")
    defended = model("reconstruction-error")
    assert defended.detector is not None
    defended.detector.calibrate(torch.linspace(0, 900, 20), fpr=0.05)  # nothing is flagged
    with pytest.raises(InputError, match=r"^ONNX file: expected"):
        export_onnx(defended, path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["the old one"]


def test_a_file_that_is_wrong_on_disk_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(path: str, **_: Any) -> None:
        proto = onnx.load(path)
        _scaled(proto)
        onnx.save(proto, path)

    monkeypatch.setattr(onnx.checker, "check_model", spoil)
    with pytest.raises(InputError, match=r"own answers to within 0\.0001"):
        export_onnx(model(), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_int8(tmp_path: Path) -> None:
    defended = model("mahalanobis", "reject-flagged")
    export_onnx(defended, tmp_path / "whole.onnx")
    made = export_onnx(
        defended, tmp_path / "model.onnx", precision="int8", calibrate=IMAGES.repeat(3, 1, 1, 1)
    )
    assert made.cost is not None
    assert (made.cost["calibrated_on"], made.cost["n"]) == (24, 48)
    # Weights of the convolutions are integers, the detector's arithmetic stays as it was.
    proto = onnx.load(tmp_path / "model.onnx")
    integers = {t.name for t in proto.graph.initializer if t.data_type == onnx.TensorProto.INT8}
    assert len(integers) >= 6
    by_output = {name: node for node in proto.graph.node for name in node.output}
    for node in proto.graph.node:
        before = {by_output[name].op_type for name in node.input if name in by_output}
        if node.op_type == "Conv":
            assert "DequantizeLinear" in before
        if node.name.startswith("defence/"):
            assert not node.op_type.endswith("QuantizeLinear")
    # The cost, computed again from the two files alone.
    ours, theirs = (
        [answers(tmp_path / name, one[None]) for one in IMAGES.repeat(3, 1, 1, 1)]
        for name in ("whole.onnx", "model.onnx")
    )
    rest = [place for place in range(72) if place % 3]
    moved = [np.abs(ours[k]["probabilities"] - theirs[k]["probabilities"]).max() for k in rest]
    assert made.cost["largest_probability"] == pytest.approx(max(moved), abs=1e-5)
    assert made.cost["mean_probability"] == pytest.approx(np.mean(moved), abs=1e-5)
    agree = [ours[k]["logits"].argmax() == theirs[k]["logits"].argmax() for k in rest]
    assert made.cost["same_class"] == pytest.approx(np.mean(agree))
    errors = [np.square(ours[k]["restored"] - theirs[k]["restored"]).mean() for k in rest]
    assert made.cost["psnr"] == pytest.approx(np.mean(-10 * np.log10(errors)), abs=0.01)
    assert made.cost["least_psnr"] > 25
    flags = [np.mean([found[k]["flagged"][0] for k in rest]) for found in (ours, theirs)]
    assert made.cost["flagged"] == pytest.approx(flags)
    reader = OnnxDefended(tmp_path / "model.onnx")
    assert reader.precision == "int8"
    assert reader.metadata["cost"] == made.cost
    assert reader(IMAGES[:3].numpy())["logits"].shape == (3, 3)
    told = "\n".join(made.lines())
    assert "on 48 images that did not set its ranges" in told
    assert f"{made.cost['psnr']:.1f} dB" in told
    with pytest.raises(InputError, match="at least 10 images; got 3"):
        export_onnx(defended, tmp_path / "other.onnx", precision="int8", calibrate=IMAGES[:3])
    narrow = IMAGES[..., :31]
    with pytest.raises(InputError, match=r"calibrate: .* \(N, 3, 32, 32\); got \(24, 3, 32, 31\)"):
        export_onnx(defended, tmp_path / "other.onnx", precision="int8", calibrate=narrow)


def test_the_command(tmp_path: Path, jernih_command: Any) -> None:
    with seeded(0):
        classifier = load_classifier("test_efficientnet", ["a", "b"])
    folder, path = tmp_path / "packaged", tmp_path / "model.onnx"
    defended = Defended(classifier, autoencoder(), prepare=Prepare(32)).eval()
    defended.save_pretrained(folder)
    code, out, err = jernih_command("export", str(folder), "--out", str(path))
    assert (code, err) == (0, "")
    assert "Verified on 8 images" in out
    assert f"File: {path}" in out
    same(path, defended, IMAGES[:2])
    other = str(tmp_path / "other.onnx")
    for arguments, reason in (
        ([str(folder), "--out", other, "--format", "tflite"], "format: expected one of 'onnx'"),
        ([str(folder), "--out", other, "--precision", "int8"], "calibrate: expected images"),
        ([str(tmp_path / "none"), "--out", other], "model: expected a run's folder"),
        ([str(folder), "--out", str(tmp_path)], "path: expected a file name"),
    ):
        assert reason in error_of(jernih_command("export", *arguments))
    assert not Path(other).exists()


def test_the_command_without_the_packages(
    tmp_path: Path,
    jernih_command: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    line = error_of(jernih_command("export", "anything", "--out", str(tmp_path / "m.onnx")))
    assert line.endswith("pip install 'jernih[onnx]' installs; got no onnxruntime")
