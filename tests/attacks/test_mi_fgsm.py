"""MI-FGSM against other libraries, closed forms and a plain loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from jernih.attacks import BIM, MIFGSM
from jernih.classifiers import Classifier
from jernih.validate import InputError
from tests.attacks.gradient_peers import of_art, of_torchattacks
from tests.attacks.test_pgd import linear_model
from tests.conftest import tiny_classifier


def test_linear_model_in_closed_form() -> None:
    model, weight = linear_model()
    images, labels = torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])
    expected = torch.stack([0.5 + 0.1 * weight.sign(), 0.5 - 0.1 * weight.sign()])
    torch.testing.assert_close(MIFGSM(0.1)(model, images, labels).images, expected)
    towards = MIFGSM(0.1, targeted=True)(model, images, labels)
    torch.testing.assert_close(towards.images, expected.flip(0))


@pytest.mark.parametrize("decay", [1.0, 0.4])
def test_against_peers(
    decay: float, classifier: Classifier, images: Tensor, labels: Tensor
) -> None:
    images[0] = images[0].round()
    eps, alpha, steps = 0.06, 0.012, 10
    attack = MIFGSM(eps, steps=steps, step_size=alpha / eps, decay=decay)
    found = attack(classifier, images, labels).images
    arguments = (classifier, images, labels)
    for made in (
        of_torchattacks("MIFGSM", *arguments, eps=eps, alpha=alpha, steps=steps, decay=decay),
        of_art(
            "MomentumIterativeMethod", *arguments, eps=eps, eps_step=alpha, max_iter=steps,
            decay=decay, verbose=False,
        ),
    ):  # fmt: skip
        torch.testing.assert_close(found, made, atol=1e-6, rtol=0)


class Turning(nn.Module):
    """Two classes whose gradient turns round once the first pixel has passed 0.55."""

    def forward(self, images: Tensor) -> Tensor:
        first = images[:, 0, 0, 0]
        score = torch.where(first < 0.55, 10 * first, 5.5 - (first - 0.55)) + images[:, 1, 0, 0]
        return torch.stack([torch.zeros_like(score), score - 20], 1)


def test_memory_carries_on_past_a_turn() -> None:
    images, labels = torch.full((1, 3, 2, 2), 0.5), torch.tensor([0])
    options = {"steps": 2, "step_size": 0.25}
    # Steps of 0.1: from 0.5 to 0.6, where the slope has changed its sign.
    back = BIM(0.4, **options)(Turning().eval(), images, labels)  # type: ignore[arg-type]
    onward = MIFGSM(0.4, **options)(Turning().eval(), images, labels)  # type: ignore[arg-type]
    forgetful = MIFGSM(0.4, decay=0, **options)(Turning().eval(), images, labels)  # type: ignore[arg-type]
    # Over their means, the gradients before and after the turn are 10.9 and −6 in the first pixel.
    assert float(back.images[0, 0, 0, 0]) == pytest.approx(0.5)
    assert float(onward.images[0, 0, 0, 0]) == pytest.approx(0.7)
    assert torch.equal(forgetful.images, back.images)


def test_gradient_of_zero_moves_nothing() -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.zeros(len(images), 2) + 0 * images.mean()

    images = torch.full((2, 3, 2, 2), 0.5)
    result = MIFGSM(0.1)(Constant().eval(), images, torch.tensor([0, 1]))
    assert torch.equal(result.images, images)


def test_stopping_early(images: Tensor) -> None:
    model = tiny_classifier(seed=2)
    labels = model(images).argmax(1)
    whole = MIFGSM(0.1)(model, images, labels)
    stopped = MIFGSM(0.1, stop_early=True)(model, images, labels)
    assert bool(whole.success.any())
    assert bool((stopped.success | ~whole.success).all())
    assert torch.equal(stopped.images[~stopped.success], whole.images[~stopped.success])


def test_options() -> None:
    assert MIFGSM(steps=20).share == 1 / 20
    assert MIFGSM(steps=20, step_size=0.3).share == 0.3
    for options in ({"steps": 0}, {"step_size": 0.0}, {"decay": -0.1}, {"decay": 1.5}):
        with pytest.raises(InputError, match=next(iter(options))):
            MIFGSM(**options)
