"""DeepFool against the nearest points of linear models and against other implementations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from jernih.attacks import DeepFool, distance
from jernih.attacks.deepfool import NUDGE
from jernih.attacks.gradients import gradients
from jernih.classifiers import Classifier
from jernih.types import Norm
from jernih.validate import InputError
from tests.attacks.known import Digits, agree, linear_model, middling, nearest_on_linear


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("overshoot_at", ["total", "step", "end"])
@pytest.mark.parametrize("classes", [2, 5])
def test_linear_model_in_closed_form(norm: Norm, overshoot_at: str, classes: int) -> None:
    model, images = linear_model(classes), middling()
    labels = model(images).argmax(1)
    points, sizes = nearest_on_linear(model, images, labels, norm)
    options = {"norm": norm, "overshoot_at": overshoot_at, "overshoot": 0.02}
    result = DeepFool(**options)(model, images, labels)  # type: ignore[arg-type]
    assert bool(result.success.all())
    torch.testing.assert_close(result.distances, 1.02 * sizes, rtol=0, atol=1e-3)
    expected = images + 1.02 * (points - images)
    torch.testing.assert_close(result.images, expected, rtol=0, atol=1e-3)
    assert bool((result.distances >= sizes).all())
    assert bool((result.distances <= 1.02 * (sizes + 2 * NUDGE)).all())


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_agrees_with_foolbox(digits: Digits, norm: Norm) -> None:
    foolbox = pytest.importorskip("foolbox", exc_type=ImportError)
    model, images, labels = digits.model, digits.images, digits.labels
    peer = foolbox.attacks.L2DeepFoolAttack if norm == "l2" else foolbox.attacks.LinfDeepFoolAttack
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    theirs, _, _ = peer(steps=50, candidates=10, overshoot=0.02)(
        wrapped, images, labels, epsilons=None
    )
    calls: list[int] = []
    handle = model.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    ours = DeepFool(norm=norm)(model, images, labels).images
    handle.remove()
    agree(model, images, labels, ours, theirs, norm)
    assert float((ours - theirs).abs().median()) < 1e-3
    assert sum(calls) < 15 * len(images)  # one question a step, for all classes


def test_agrees_with_torchattacks(digits: Digits) -> None:
    torchattacks = pytest.importorskip("torchattacks", exc_type=ImportError)
    model, images, labels = digits.model, digits.images[:20], digits.labels[:20]
    theirs = torchattacks.DeepFool(model, steps=50, overshoot=0.02)(images, labels)
    ours = DeepFool(overshoot_at="step", classes=None)(model, images, labels)
    assert bool(ours.success.all())
    # Without a least length of a step it stops short of the boundary where pixels are clipped.
    torch.testing.assert_close(
        ours.distances.median(), distance(images, theirs, "l2").median(), rtol=0.05, atol=0
    )
    assert float((ours.images - theirs).abs().max()) < 0.02


def test_agrees_with_art(digits: Digits) -> None:
    evasion = pytest.importorskip("art.attacks.evasion", exc_type=ImportError)
    estimators = pytest.importorskip("art.estimators.classification", exc_type=ImportError)
    model, images, labels = digits.model, digits.images, digits.labels
    wrapped = estimators.PyTorchClassifier(
        model, nn.CrossEntropyLoss(), images.shape[1:], 10, clip_values=(0, 1), device_type="cpu"
    )
    attack = evasion.DeepFool(
        wrapped, max_iter=50, epsilon=0.02, nb_grads=10, batch_size=len(images), verbose=False
    )
    theirs = torch.from_numpy(attack.generate(images.numpy()))
    ours = DeepFool(overshoot_at="end")(model, images, labels).images
    agree(model, images, labels, ours, theirs, "l2")


def test_few_classes_suffice(digits: Digits) -> None:
    model, images, labels = digits.model, digits.images, digits.labels
    few = DeepFool(classes=4)(model, images, labels)
    every = DeepFool(classes=None)(model, images, labels)
    assert bool(few.success.all())
    torch.testing.assert_close(few.distances.median(), every.distances.median(), rtol=0.05, atol=0)


def test_two_classes(two_digits: Digits) -> None:
    result = DeepFool()(two_digits.model, two_digits.images, two_digits.labels)
    assert bool(result.success.all())


def test_images_leave_when_fooled(digits: Digits) -> None:
    model, images, labels = digits.model, digits.images.clone(), digits.labels.clone()
    labels[:30] = (labels[:30] + 1) % 10
    seen: list[int] = []
    handle = model.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    result = DeepFool()(model, images, labels)
    handle.remove()
    assert torch.equal(result.images[:30], images[:30])
    assert bool(result.success.all())
    assert seen[:2] == [60, 30]
    assert all(count <= 30 for count in seen[1:-1])


def test_what_is_not_found_stays(digits: Digits) -> None:
    result = DeepFool(steps=4)(digits.model, digits.images, digits.labels)
    assert 0 < int(result.success.sum()) < len(digits.images)
    assert bool((result.distances[~result.success] == 0).all())


class Unbatchable(torch.autograd.Function):
    """The identity, whose backward pass looks at a value."""

    @staticmethod
    def forward(ctx: object, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        return grads[0] * (2.0 if float(grads[0].sum()) > 1e9 else 1.0)


def test_gradients_of_several_values(classifier: Classifier, images: Tensor) -> None:
    leaf = images.clone().requires_grad_(True)
    expected = [torch.autograd.grad(classifier(leaf)[:, k].sum(), leaf)[0] for k in range(3)]
    for operation in (lambda x: x, Unbatchable.apply):
        found = torch.cat(list(gradients(classifier(operation(leaf)), leaf)))
        torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize(
    "options",
    [{"steps": 0}, {"norm": "l1"}, {"overshoot": -0.1}, {"classes": 1}, {"overshoot_at": "x"}],
)
def test_refuses_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        DeepFool(**options)  # type: ignore[arg-type]
