"""Auto-PGD against closed forms and other implementations."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from jernih.attacks import APGD, PGD
from jernih.attacks.losses import cross_entropy, dlr
from jernih.randomness import generator
from jernih.types import Norm
from jernih.validate import InputError
from tests.attacks.gradient_peers import of_art, of_torchattacks
from tests.attacks.known import Digits, linear_model, middling, share_agrees
from tests.conftest import tiny_classifier

BOUNDS: list[tuple[Norm, float]] = [("linf", 0.1), ("l2", 0.55)]
"""Bounds at which about half of the digits withstand."""
ABROAD = {"linf": "Linf", "l2": "L2"}


def fooled(digits: Digits, made: Tensor) -> Tensor:
    found: Tensor = digits.model(made).argmax(1) != digits.labels
    return found


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("targeted", [False, True])
def test_best_point_on_a_linear_model(norm: Norm, targeted: bool) -> None:
    model, images = linear_model(classes=2), middling()
    labels = torch.arange(len(images)) % 2
    layer = next(m for m in model.modules() if isinstance(m, nn.Linear))
    slope = (layer.weight[1] - layer.weight[0]).view(1, *images[0].shape)
    towards = slope.sign() if norm == "linf" else slope / slope.norm()
    sign = (1 - 2 * labels.float()).view(-1, 1, 1, 1) * (-1 if targeted else 1)
    eps = 0.1 if norm == "linf" else 0.3
    attack = APGD(eps, norm=norm, targeted=targeted, stop_early=False)
    made = attack(model, images, labels, generator=generator(0)).images
    best = images + eps * sign * towards
    torch.testing.assert_close(made, best, atol=5e-4, rtol=0)  # flat near the best point in L2
    high, highest = (cross_entropy(model(x), labels) for x in (made, best))
    torch.testing.assert_close(high, highest, atol=1e-5, rtol=0)


def test_best_point_in_l1_fills_pixel_after_pixel() -> None:
    model, images = linear_model(classes=2), middling()
    labels = torch.zeros(len(images), dtype=torch.int64)
    layer = next(m for m in model.modules() if isinstance(m, nn.Linear))
    slope = layer.weight[1] - layer.weight[0]
    eps, best = 2.5, images.flatten(1).clone()
    for row in best:
        left = eps
        for pixel in slope.abs().argsort(descending=True):
            room = 1 - row[pixel] if slope[pixel] > 0 else row[pixel]
            way = min(float(room), left)
            row[pixel] += way * float(slope[pixel].sign())
            left -= way
    attack = APGD(eps, norm="l1", stop_early=False)
    result = attack(model, images, labels, generator=generator(0))
    high, highest = (cross_entropy(model(x), labels) for x in (result.images, best.view_as(images)))
    torch.testing.assert_close(high, highest, rtol=0.01, atol=0)
    assert bool((high <= highest + 1e-4).all())


@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_l1_on_digits(loss: str, digits: Digits) -> None:
    data = (digits.model, digits.images, digits.labels)
    ours = APGD(2.2, norm="l1", steps=40, loss=loss)  # type: ignore[arg-type]
    success = ours(*data, generator=generator(0)).success
    plain = PGD(2.2, norm="l1", steps=40)(*data, generator=generator(0)).success
    assert int(success.sum()) >= int(plain.sum()) > 0
    theirs = of_art(
        "AutoProjectedGradientDescent", *data, norm=1, eps=2.2, eps_step=4.4, max_iter=40,
        nb_random_init=1, loss_type="cross_entropy", verbose=False,
    )  # fmt: skip
    # ART steps along the gradient itself and leaves [0, 1] out of its projection.
    assert int(success.sum()) >= int(fooled(digits, theirs).sum())
    assert int(success.sum()) < len(success)


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize(("norm", "eps"), BOUNDS)
def test_same_ascent_as_torchattacks(
    norm: Norm, eps: float, loss: str, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the same start, the highest losses are the same to the last step."""
    torchattacks = pytest.importorskip("torchattacks")
    steps = 30
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = torchattacks.APGD(digits.model, norm=ABROAD[norm], eps=eps, steps=steps, loss=loss)
        torch.manual_seed(1)
        theirs, _, height, _ = peer.attack_single_run(digits.images, digits.labels)
        torch.manual_seed(1)
        draw = torch.rand if norm == "linf" else torch.randn
        noise = draw(digits.images.shape) if norm == "l2" else 2 * draw(digits.images.shape) - 1
        order = torch.inf if norm == "linf" else 2
        size = torch.linalg.vector_norm(noise.flatten(1), ord=order, dim=1).view(-1, 1, 1, 1)
    start = (digits.images + eps * noise / size).clamp(0, 1)
    monkeypatch.setattr("jernih.attacks.apgd.random_start", lambda *_: start)
    # Never fooled: what is returned is the point of the highest loss.
    monkeypatch.setattr(APGD, "fooled", lambda _, logits, labels: torch.zeros_like(labels) > 0)
    attack = APGD(eps, norm=norm, steps=steps, loss=loss)  # type: ignore[arg-type]
    ours = attack.run(digits.model, digits.images, digits.labels, eps, None)
    value = dlr if loss == "dlr" else cross_entropy
    found = value(digits.model(ours), digits.labels)
    # Rounding turns signs of tiny gradients, and with them whole paths, in a few images.
    assert float(((found - height).abs() < 1e-3).float().mean()) > 0.8
    assert float((ours - theirs).abs().amax((1, 2, 3)).median()) < 1e-3


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize(("norm", "eps"), BOUNDS)
def test_as_many_withstand_as_in_peers(norm: Norm, eps: float, loss: str, digits: Digits) -> None:
    steps = 20
    attack = APGD(eps, norm=norm, steps=steps, loss=loss)  # type: ignore[arg-type]
    data = (digits.model, digits.images, digits.labels)
    success = attack(*data, generator=generator(0)).success
    assert 0.2 < float(success.float().mean()) < 0.8
    theirs = of_torchattacks("APGD", *data, norm=ABROAD[norm], eps=eps, steps=steps, loss=loss)
    assert share_agrees(success, fooled(digits, theirs))
    if loss == "ce":
        theirs = of_art(
            "AutoProjectedGradientDescent", *data, norm=float("inf") if norm == "linf" else 2,
            eps=eps, eps_step=2 * eps, max_iter=steps, nb_random_init=1,
            loss_type="cross_entropy", verbose=False,
        )  # fmt: skip
        assert share_agrees(success, fooled(digits, theirs))


@pytest.mark.parametrize(("norm", "eps"), BOUNDS)
def test_at_least_as_strong_as_pgd(norm: Norm, eps: float, digits: Digits) -> None:
    data = (digits.model, digits.images, digits.labels)
    ours, plain = (
        int(kind(eps, norm=norm, steps=40)(*data, generator=generator(0)).success.sum())
        for kind in (APGD, PGD)
    )
    assert ours >= plain


def test_stopping_early_costs_no_success_and_spares_work(digits: Digits) -> None:
    success, work = {}, {}
    for stop in (False, True):
        seen: list[int] = []
        handle = digits.model.register_forward_hook(
            lambda _, inputs, __, seen=seen: seen.append(len(inputs[0]))
        )
        attack = APGD(0.1, steps=20, stop_early=stop)
        result = attack(digits.model, digits.images, digits.labels, generator=generator(0))
        handle.remove()
        success[stop], work[stop] = result.success, sum(seen)
    assert torch.equal(success[True], success[False])
    assert work[True] < 0.8 * work[False]
    assert work[False] == len(digits.labels) * 23  # the images, their starts, 20 steps, the outcome


def test_images_misclassified_from_the_start_stay(digits: Digits) -> None:
    result = APGD(0.1)(digits.model, digits.images, (digits.labels + 1) % 10)
    assert torch.equal(result.images, digits.images)


def test_restarts_go_on_with_the_unfooled(digits: Digits) -> None:
    made = {}
    for restarts in (1, 5):
        attack = APGD(0.6, norm="l2", steps=2, restarts=restarts)
        made[restarts] = attack(digits.model, digits.images, digits.labels, generator=generator(0))
    kept = made[1].success
    assert int(made[5].success.sum()) > int(kept.sum())
    assert torch.equal(made[5].images[kept], made[1].images[kept])
    before, after = (cross_entropy(made[k].logits, digits.labels)[~made[5].success] for k in (1, 5))
    assert bool((after >= before - 1e-5).all())


def test_targeted(digits: Digits) -> None:
    wanted = digits.model(digits.images).topk(2).indices[:, 1]
    for loss in ("ce", "dlr"):
        attack = APGD(0.15, targeted=True, steps=20, loss=loss)
        result = attack(digits.model, digits.images, wanted, generator=generator(0))
        assert torch.equal(result.success, digits.model(result.images).argmax(1) == wanted)
        assert float(result.success.float().mean()) > 0.5


class Noisy(nn.Module):
    """Adds noise of its own to the images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.source = generator("noisy")
        self.asked = 0

    def forward(self, images: Tensor) -> Tensor:
        self.asked += 1
        noise = torch.randn(images.shape, generator=self.source)
        logits: Tensor = self.model(images + 0.3 * noise)
        return logits


def test_samples_average_the_answers_of_a_random_model(digits: Digits) -> None:
    rises = {}
    for samples in (1, 8):
        noisy = Noisy(digits.model).eval()
        attack = APGD(0.05, steps=10, samples=samples, stop_early=False)
        result = attack(noisy, digits.images, digits.labels, generator=generator(0))
        assert noisy.asked == 11 * samples + 2
        many = [cross_entropy(noisy(result.images), digits.labels).mean() for _ in range(20)]
        rises[samples] = float(torch.stack(many).mean())
    assert rises[8] > rises[1]


def test_logits_of_half_precision(digits: Digits) -> None:
    class Half(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = digits.model(images).bfloat16()
            return logits

    data = (Half().eval(), digits.images, digits.labels)
    for stop in (False, True):
        result = APGD(0.1, steps=5, stop_early=stop)(*data, generator=generator(0))
        assert 0 < int(result.success.sum()) < len(digits.labels)


def test_dlr_wants_three_classes() -> None:
    model, images = tiny_classifier(outputs=1), torch.rand(2, 3, 16, 16)
    with pytest.raises(InputError, match="'ce' for a model of two classes"):
        APGD(loss="dlr")(model, images, torch.tensor([0, 1]))


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"restarts": 0},
        {"samples": 0},
        {"loss": "cw"},
        {"rho": 1.5},
        {"norm": "l3"},
    ],
)
def test_refuses_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        APGD(0.1, **options)  # type: ignore[arg-type]


def test_defaults_are_the_published_ones() -> None:
    described = APGD(norm="l2").describe()
    assert described["eps"] == 0.5
    assert {k: described[k] for k in ("steps", "restarts", "rho", "samples", "loss")} == {
        "steps": 100, "restarts": 1, "rho": 0.75, "samples": 1, "loss": "ce",
    }  # fmt: skip
