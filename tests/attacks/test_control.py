"""What every control has to hold beyond what every attack has to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jernih.attacks import ATTACKS, Control
from jernih.classifiers import Classifier
from jernih.randomness import generator
from jernih.validate import InputError
from tests.conftest import tiny_classifier

CONTROLS = [name for name in ATTACKS if issubclass(ATTACKS.get(name), Control)]


def test_all_are_found() -> None:
    assert CONTROLS == [
        "blur", "gaussian-noise", "jpeg-compression", "salt-and-pepper", "uniform-noise",
    ]  # fmt: skip


@pytest.mark.parametrize("name", CONTROLS)
class TestControls:
    def test_never_asks_the_model(
        self, name: str, classifier: Classifier, images: Tensor, labels: Tensor
    ) -> None:
        calls: list[int] = []
        handle = classifier.register_forward_hook(lambda *_: calls.append(1))
        attack = ATTACKS.create(name)
        made = attack.perturb(classifier, images, labels, [0.01, 0.1], generator=generator(0))
        handle.remove()
        assert not calls
        others = attack.perturb(
            tiny_classifier(seed=5), images, (labels + 1) % 3, [0.01, 0.1], generator=generator(0)
        )
        assert all(torch.equal(a, b) for a, b in zip(made, others, strict=True))

    def test_bounds_of_a_sweep_give_what_they_give_alone(
        self, name: str, classifier: Classifier, images: Tensor, labels: Tensor
    ) -> None:
        bounds = [0.01, 8 / 255, 0.2]
        swept = ATTACKS.create(name).sweep(
            classifier, images, labels, bounds, generator=generator(0)
        )
        for result, eps in zip(swept, bounds, strict=True):
            alone = ATTACKS.create(name, eps=eps)(
                classifier, images, labels, generator=generator(0)
            )
            assert torch.equal(result.images, alone.images)
            assert float(result.distances.max()) <= eps + 1e-6

    def test_batch_mates_do_not_matter(
        self, name: str, classifier: Classifier, images: Tensor, labels: Tensor
    ) -> None:
        images = images[..., :31, :29].contiguous()
        attack = ATTACKS.create(name)
        whole = attack(classifier, images, labels, generator=generator(0)).images
        part = attack(classifier, images[:2], labels[:2], generator=generator(0)).images
        torch.testing.assert_close(part, whole[:2], atol=1e-6, rtol=0)

    def test_without_a_generator(
        self, name: str, classifier: Classifier, images: Tensor, labels: Tensor
    ) -> None:
        state = torch.get_rng_state()
        result = ATTACKS.create(name)(classifier, images, labels)
        assert float(result.distances.max()) <= 8 / 255 + 1e-6
        assert torch.equal(torch.get_rng_state(), state)

    def test_has_no_targeted_form(self, name: str) -> None:
        assert not ATTACKS.create(name).targeted
        with pytest.raises(InputError, match="targeted"):
            ATTACKS.create(name, targeted=True)
