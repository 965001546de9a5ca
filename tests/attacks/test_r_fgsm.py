"""R+FGSM against what is known of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from jernih.attacks import FGSM, RFGSM
from jernih.classifiers import Classifier
from jernih.randomness import generator
from jernih.validate import InputError
from tests.attacks.test_pgd import linear_model


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_linear_model_in_closed_form(share: float) -> None:
    model, weight = linear_model()
    images, labels = torch.full((40, 3, 2, 2), 0.5), torch.arange(40) % 2
    attack = RFGSM(0.2, random_share=share)
    moved = attack(model, images, labels, generator=generator(0)).images - images
    # The random part is share · ε to either side; what is left of the move is the gradient's part.
    along = torch.where(labels == 0, 1, -1).view(-1, 1, 1, 1) * weight.sign()
    random = moved - (1 - share) * 0.2 * along
    torch.testing.assert_close(random.abs(), torch.full_like(random, share * 0.2))
    assert float((random > 0).float().mean()) == pytest.approx(0.5, abs=0.06)
    assert not torch.equal(random[0], random[1])
    towards = RFGSM(0.2, random_share=share, targeted=True)
    aimed = towards(model, images, 1 - labels, generator=generator(0)).images
    torch.testing.assert_close(aimed, images + moved)


def test_against_a_plain_loop(classifier: Classifier, images: Tensor, labels: Tensor) -> None:
    images[0] = images[0].round()
    eps, alpha = 0.06, 0.02
    attack = RFGSM(eps, random_share=alpha / eps)
    found = attack(classifier, images, labels, generator=generator(4)).images
    signs = torch.randint(0, 2, images.shape, generator=generator(4)) * 2.0 - 1
    for number in range(len(images)):
        image, label = images[number : number + 1], labels[number : number + 1]
        near = (image + alpha * signs[number]).clamp(0, 1).requires_grad_(True)
        loss = nn.functional.cross_entropy(classifier(near), label)
        (gradient,) = torch.autograd.grad(loss, near)
        wanted = (near.detach() + (eps - alpha) * gradient.sign()).clamp(0, 1)
        torch.testing.assert_close(found[number : number + 1], wanted, atol=1e-6, rtol=0)


def test_without_a_random_step_it_is_fgsm(
    classifier: Classifier, images: Tensor, labels: Tensor
) -> None:
    found = RFGSM(0.03, random_share=0)(classifier, images, labels).images
    assert torch.equal(found, FGSM(0.03)(classifier, images, labels).images)


def test_bounds_of_a_sweep_share_the_signs(
    classifier: Classifier, images: Tensor, labels: Tensor
) -> None:
    bounds = [0.01, 0.03, 0.1]
    swept = RFGSM().sweep(classifier, images, labels, bounds, generator=generator(0))
    for result, eps in zip(swept, bounds, strict=True):
        alone = RFGSM(eps)(classifier, images, labels, generator=generator(0))
        assert torch.equal(result.images, alone.images)


def test_a_generator_of_its_own(classifier: Classifier, images: Tensor, labels: Tensor) -> None:
    state = torch.get_rng_state()
    first = RFGSM(0.03)(classifier, images, labels).images
    assert not torch.equal(first, RFGSM(0.03)(classifier, images, labels).images)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("share", [-0.1, 1, 2.0])
def test_refuses_bad_shares(share: float) -> None:
    with pytest.raises(InputError, match="random_share"):
        RFGSM(random_share=share)
