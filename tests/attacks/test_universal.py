"""Universal: one perturbation, which also fools images that it was not learned on."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from jernih.attacks import Universal, distance
from jernih.randomness import generator
from jernih.types import Norm
from jernih.validate import InputError
from tests.attacks.known import Digits, linear_model, middling, train_digits

KNOWN = 60


@pytest.fixture(scope="module")
def many() -> Digits:
    """Enough of them to keep some for later."""
    return train_digits(count=200)


def share_fooled(digits: Digits, delta: Tensor, part: slice) -> float:
    images, labels = digits.images[part], digits.labels[part]
    answers = digits.model((images + delta).clamp(0, 1)).argmax(1)
    return float((answers != labels).float().mean())


def least_of(share: float, count: int) -> float:
    """The lower end of the 95 % interval of a share of so many images."""
    return float(binomtest(round(share * count), count).proportion_ci(method="wilson").low)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_two_classes_of_a_linear_model_in_closed_form(norm: Norm) -> None:
    model, images = linear_model(classes=2), middling()
    labels = torch.zeros(len(images), dtype=torch.int64)
    layer = model[1]  # type: ignore[index]
    slope = (layer.weight[1] - layer.weight[0]).view(images[0].shape)
    eps = 0.01 if norm == "linf" else 0.05
    way = slope.sign() if norm == "linf" else slope / slope.norm()
    # Both classes are right for some images, and all of them lead the same way.
    for goal, towards in ((False, way), (True, -way)):
        attack = Universal(eps, norm=norm, targeted=goal)
        delta = attack.learn(model, [(images, labels)] * 12)
        torch.testing.assert_close(delta[0], eps * towards, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.2), ("l2", 1.5)])
def test_fools_new_images_more_than_noise_does(many: Digits, norm: Norm, eps: float) -> None:
    attack = Universal(eps, norm=norm)
    batches = [
        (many.images[k : k + 25], many.labels[k : k + 25])  # the last batch is smaller
        for k in range(0, KNOWN, 25)
    ]
    delta = attack.learn(many.model, batches * 15)
    assert delta.shape == (1, *many.images.shape[1:])
    size = float(distance(torch.zeros_like(delta), delta, norm)[0])
    assert size == pytest.approx(eps, rel=1e-4)
    noise = torch.randn(delta.shape, generator=generator("universal"))
    noise = eps * (noise.sign() if norm == "linf" else noise / noise.norm())
    new = slice(KNOWN, None)
    assert share_fooled(many, delta, new) > share_fooled(many, noise, new) + 0.2
    applied = attack.apply(many.images[new], delta)
    torch.testing.assert_close(applied, (many.images[new] + delta).clamp(0, 1))


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.2), ("l2", 1.5)])
def test_beside_art(many: Digits, norm: Norm, eps: float) -> None:
    """ART's goes through the images one by one, and what it fools varies much with their order.

    So ours stands beside the best of three runs, with small FGSM steps within: with DeepFool, the
    default, ART fools fewer (at most a sixth here in L∞, half in L2).
    """
    images, labels = many.images[:KNOWN], many.labels[:KNOWN]
    order = np.inf if norm == "linf" else 2
    runs = []
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - ART draws from both
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evasion = pytest.importorskip("art.attacks.evasion")
        estimators = pytest.importorskip("art.estimators.classification")
        wrapped = estimators.PyTorchClassifier(
            many.model, nn.CrossEntropyLoss(), images.shape[1:], 10, clip_values=(0, 1),
            device_type="cpu",
        )  # fmt: skip
        try:
            for seed in range(3):
                random.seed(seed)
                np.random.seed(seed)  # noqa: NPY002
                attack = evasion.UniversalPerturbation(
                    wrapped, attacker="fgsm", attacker_params={"eps": eps / 4, "norm": order},
                    delta=0.0, eps=eps, max_iter=5, norm=order, verbose=False,
                )  # fmt: skip
                attack.generate(images.numpy(), labels.numpy())
                runs.append(torch.from_numpy(attack.noise).float())
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
    for made in runs:
        assert float(distance(torch.zeros_like(made), made, norm)[0]) <= eps * (1 + 1e-5)
    ours = Universal(eps, norm=norm)
    called = float(ours(many.model, images, labels).success.float().mean())
    delta = ours.learn(many.model, [(images, labels)] * 50)
    learned, new = slice(KNOWN), slice(KNOWN, None)
    known = max(share_fooled(many, made, learned) for made in runs)
    assert known > 0.25  # it has found something
    for share in (called, share_fooled(many, delta, learned)):
        assert share >= least_of(known, KNOWN)
    others = max(share_fooled(many, made, new) for made in runs)
    assert share_fooled(many, delta, new) >= least_of(others, len(many.images) - KNOWN)


def test_a_call_shares_one_perturbation_and_asks_once_a_step(many: Digits) -> None:
    images, labels = 0.3 + 0.4 * many.images[:20], many.labels[:20]
    asked: list[int] = []
    handle = many.model.register_forward_hook(lambda _, inputs, __: asked.append(len(inputs[0])))
    result = Universal(0.05, steps=10)(many.model, images, labels)
    handle.remove()
    changes = result.images - images  # no pixel is near an end of the range
    torch.testing.assert_close(changes, changes[:1].expand_as(changes), atol=1e-6, rtol=0)
    assert asked == [20] * 12  # at every point on the way, and for the outcome


def test_the_best_point_on_the_way_counts(many: Digits) -> None:
    images, labels = many.images[:40], many.labels[:40]
    fooled = [
        int(Universal(0.15, steps=steps)(many.model, images, labels).success.sum())
        for steps in (1, 10, 50)
    ]
    assert fooled[0] < fooled[1]
    assert fooled[2] >= fooled[1] - 1  # other steps: the last ones are short in both
    wrong = Universal(0.1)(many.model, images, (labels + 1) % 10)
    assert torch.equal(wrong.images, images)


def test_targeted_reaches_one_class(many: Digits) -> None:
    wanted = torch.full((30,), 3)
    result = Universal(0.4, targeted=True)(many.model, many.images[:30], wanted)
    assert float(result.success.float().mean()) > 0.5


def test_long_fooled_images_do_not_lead() -> None:
    """One image is far beyond its boundary, another needs to be led the other way."""

    class Line(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            sums = images.sum((1, 2, 3))
            return torch.stack([sums, 1 - sums], 1)

    images = torch.cat([torch.ones(3, 1, 4, 4), torch.full((1, 1, 4, 4), 0.04)])
    labels = torch.tensor([1, 1, 1, 1])  # the first three are wrong by 31 in logits
    delta = Universal(0.02).learn(Line().eval(), [(images, labels)])
    torch.testing.assert_close(delta, torch.full_like(delta, 0.002))
    # All of the slope comes from the last image, the mean of four.
    gradient, _ = Universal(0.02)._gradient(Line().eval(), images, labels, 0 * delta)
    alone, _ = Universal(0.02)._gradient(Line().eval(), images[3:], labels[3:], 0 * delta)
    torch.testing.assert_close(4 * gradient, alone)


def test_refuses(many: Digits) -> None:
    images, labels = many.images[:4], many.labels[:4]
    attack = Universal()
    with pytest.raises(InputError, match="batches"):
        attack.learn(many.model, [])
    with pytest.raises(InputError, match="share"):
        attack.learn(many.model, [(images, labels)], share=0)
    with pytest.raises(InputError, match=r"labels: expected shape \(4,\)"):
        attack.learn(many.model, [(images, labels[:2])])
    with pytest.raises(InputError, match=r"images: expected size \(1, 8, 8\)"):
        attack.learn(many.model, [(images, labels), (images[..., :4], labels)])
    with pytest.raises(InputError, match=r"images: expected size \(1, 4, 8\)"):
        attack.apply(images, torch.zeros(1, 1, 4, 8))
    with pytest.raises(InputError, match="norm"):
        Universal(norm="l1")
    with pytest.raises(InputError, match="steps"):
        Universal(steps=0)
