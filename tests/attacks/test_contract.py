"""What every registered attack has to hold."""

from __future__ import annotations

import copy
import inspect
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from jernih.attacks import ATTACKS, UNBOUNDED, Attack, MinimumNorm, asking, distance
from jernih.classifiers import Classifier
from jernih.randomness import generator
from jernih.types import Needs, Norm
from jernih.validate import InputError
from tests.conftest import tiny_classifier

EPS = 8 / 255
MOST = {"steps": 20, "searches": 3, "queries": 60, "initial": 10}
ENOUGH = {"steps": 100, "searches": 9, "initial": 10}


def make(name: str, **options: object) -> Attack:
    """The attack with less work than by default, where its options allow that."""
    known = inspect.signature(ATTACKS.get(name)).parameters
    less = {k: min(most, known[k].default) for k, most in MOST.items() if k in known}
    return ATTACKS.create(name, **(less | options))


def ample(name: str) -> dict[str, object]:
    """A bound in which a lot happens; a search of the smallest perturbation has none, but work."""
    if not issubclass(ATTACKS.get(name), MinimumNorm):
        return {"eps": 0.3}
    known = inspect.signature(ATTACKS.get(name)).parameters
    return {k: min(most, known[k].default) for k, most in ENOUGH.items() if k in known}


class Shows(nn.Module):
    """A model that shows of itself only so much, and counts how often it is asked."""

    def __init__(self, model: nn.Module, what: Needs) -> None:
        super().__init__()
        self.model, self.what, self.asked = model, what, 0

    def forward(self, images: Tensor) -> Tensor:
        self.asked += 1
        logits: Tensor = self.model(images)
        if self.what == "gradients":
            return logits
        logits = logits.detach()
        if self.what == "scores":
            return logits
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()


class OneByOne(nn.Module):
    """A model that sees each image alone, so that its rounding does not tell how many there are."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.model(images[k : k + 1]) for k in range(len(images))])


@pytest.fixture
def fragile() -> Classifier:
    """A classifier between two of its classes."""
    return tiny_classifier(seed=2)


@pytest.mark.parametrize("name", ATTACKS.names())
class TestContract:
    def test_stays_in_the_ball_and_in_range(
        self, name: str, classifier: Classifier, images: Tensor, labels: Tensor
    ) -> None:
        images[0] = images[0].round()  # pixels at the very ends of the range
        attack = make(name, eps=EPS)
        result = attack(classifier, images, labels, generator=generator(0))
        assert result.images.shape == images.shape
        assert result.images.dtype is torch.float32
        assert float(result.images.min()) >= 0
        assert float(result.images.max()) <= 1
        assert float(result.distances.max()) <= EPS + 1e-6
        torch.testing.assert_close(
            result.distances, distance(images, result.images, attack.norm), rtol=0, atol=0
        )

    def test_moves_images_the_model_gets_right(
        self, name: str, fragile: Classifier, images: Tensor
    ) -> None:
        images[0] = images[0].round()
        labels = fragile(images).argmax(1)
        attack = make(name, **ample(name))
        result = attack(fragile, images, labels, generator=generator(0))
        moved = result.distances > 0
        assert bool(moved.any())
        assert bool((moved | ~result.success).all())
        assert 0 <= float(result.images.min()) <= float(result.images.max()) <= 1
        if isinstance(attack, MinimumNorm):
            assert torch.equal(moved, result.success)

    def test_image_does_not_depend_on_its_batch(
        self, name: str, fragile: Classifier, images: Tensor
    ) -> None:
        if ATTACKS.get(name).shares:
            pytest.skip("one perturbation for the batch")
        labels = fragile(images).argmax(1)
        attack = make(name, **ample(name))
        first = attack(fragile, images, labels, generator=generator(0))
        images[1:] = images[1:].flip(3).square()
        labels[1:] = fragile(images).argmax(1)[1:]
        second = attack(fragile, images, labels, generator=generator(0))
        # Rounding differs with the number of images asked about at once.
        apart = (first.images[0] - second.images[0]).abs()
        assert float((apart > 1e-3).float().mean()) < 0.01

    def test_image_alone_fares_as_in_company(
        self, name: str, fragile: Classifier, images: Tensor
    ) -> None:
        if ATTACKS.get(name).shares:
            pytest.skip("one perturbation for the batch")
        model = OneByOne(fragile).eval()
        labels = model(images).argmax(1)
        attack = make(name, **ample(name))
        company = attack(model, images, labels, generator=generator(0)).images[:1]
        alone = attack(model, images[:1], labels[:1], generator=generator(0)).images
        torch.testing.assert_close(alone, company, rtol=0, atol=1e-5)

    def test_parts_of_a_batch_fare_as_the_whole(
        self,
        name: str,
        fragile: Classifier,
        images: Tensor,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        model = OneByOne(fragile).eval()
        labels = model(images).argmax(1)
        attack = make(name, **ample(name))
        whole = attack(model, images, labels, generator=generator(0)).images
        monkeypatch.setattr(asking, "AT_ONCE", 4 * images[0, 0].numel())
        assert len(asking.parts(images)) == 2
        made = attack(model, images, labels, generator=generator(0)).images
        # What a search draws goes by its part.
        same = slice(4) if isinstance(attack, MinimumNorm) else slice(None)
        torch.testing.assert_close(made[same], whole[same], rtol=0, atol=1e-5)

    def test_outcome_is_what_the_model_says(
        self, name: str, classifier: Classifier, images: Tensor, labels: Tensor
    ) -> None:
        result = make(name, eps=EPS)(classifier, images, labels, generator=generator(0))
        predicted = classifier(result.images).argmax(1)
        assert torch.equal(result.predictions, predicted)
        assert torch.equal(result.success, predicted != labels)

    def test_same_generator_same_images(
        self, name: str, classifier: Classifier, images: Tensor, labels: Tensor
    ) -> None:
        attack = make(name, eps=EPS)
        state = torch.get_rng_state()
        first = attack(classifier, images, labels, generator=generator(1)).images
        second = attack(classifier, images, labels, generator=generator(1)).images
        assert torch.equal(first, second)
        attack(classifier, images, labels)  # without a generator: not torch's own either
        assert torch.equal(state, torch.get_rng_state())

    def test_leaves_model_and_inputs_alone(
        self, name: str, classifier: Classifier, images: Tensor, labels: Tensor
    ) -> None:
        next(classifier.parameters()).grad = torch.ones_like(next(classifier.parameters()))
        before = copy.deepcopy(classifier.state_dict())
        kept = images.clone()
        make(name, eps=EPS)(classifier, images, labels, generator=generator(0))
        for key, value in classifier.state_dict().items():
            assert torch.equal(value, before[key])
        assert all(not module.training for module in classifier.modules())
        assert all(p.requires_grad for p in classifier.parameters())
        gradients = [p.grad for p in classifier.parameters()]
        assert gradients[0] is not None
        assert bool((gradients[0] == 1).all())
        assert all(g is None for g in gradients[1:])
        assert torch.equal(images, kept)
        assert not images.requires_grad

    def test_two_classes_from_one_logit(self, name: str, images: Tensor) -> None:
        model = tiny_classifier(outputs=1)
        with torch.no_grad():  # both classes occur, else decisions alone lead nowhere
            model.network.head.bias -= model(images)[:, 1].median()  # type: ignore[union-attr]
        labels = model(images).argmax(1)
        attack = make(name, **ample(name))
        result = attack(model, images, labels, generator=generator(0))
        assert result.images.shape == images.shape
        assert not torch.equal(result.images, images)

    def test_zero_bound_changes_nothing(
        self, name: str, classifier: Classifier, images: Tensor, labels: Tensor
    ) -> None:
        result = make(name, eps=0)(classifier, images, labels, generator=generator(0))
        assert torch.equal(result.images, images)

    def test_refuses_bad_arguments(
        self, name: str, classifier: Classifier, images: Tensor, labels: Tensor
    ) -> None:
        attack = make(name, eps=EPS)
        with pytest.raises(InputError, match=r"images: expected values in \[0, 1\]"):
            attack(classifier, images * 2 - 1, labels)
        with pytest.raises(InputError, match=r"labels: expected class indices in \[0, 2\]; got 5"):
            attack(classifier, images, labels + 5)
        with pytest.raises(InputError, match=r"labels: expected shape \(6,\)"):
            attack(classifier, images, labels[:3])
        with pytest.raises(InputError, match=r"dtype torch\.int64"):
            attack(classifier, images, labels.float())
        with pytest.raises(InputError, match="evaluation mode"):
            attack(classifier.train(), images, labels)
        bad = images.clone()
        bad[0, 0, 0, 0] = float("nan")
        with pytest.raises(InputError, match="finite values"):
            attack(classifier.eval(), bad, labels)

    def test_refuses_a_model_without_logits(
        self, name: str, images: Tensor, labels: Tensor
    ) -> None:
        with pytest.raises(InputError, match="model output"):
            make(name, eps=EPS)(nn.Identity().eval(), images, labels)

    @pytest.mark.parametrize("eps", [-0.1, 1.5, float("nan"), "a/b", "1/0"])
    def test_refuses_bad_bounds(self, name: str, eps: float | str) -> None:
        if eps == 1.5 and ATTACKS.create(name).norm != "linf":
            eps = 1.5 * UNBOUNDED
        with pytest.raises(InputError, match="eps"):
            ATTACKS.create(name, eps=eps)

    def test_names_its_source(self, name: str) -> None:
        assert ATTACKS.get(name).reference

    def test_needs_what_it_says(self, name: str, fragile: Classifier, images: Tensor) -> None:
        attack = make(name, **ample(name))
        assert attack.needs in get_args(Needs)
        labels = fragile(images).argmax(1)

        def made(what: Needs) -> Tensor:
            model = Shows(fragile, what).eval()
            perturbed = attack.perturb(model, images, labels, [attack.eps], generator=generator(0))
            assert (model.asked == 0) == (attack.needs == "nothing")
            return perturbed[0]

        whole = made("gradients")
        if attack.needs == "gradients":
            try:
                blind = made("scores")
            except RuntimeError:
                return
            assert not torch.equal(whole, blind)
        elif attack.needs == "scores":
            assert torch.equal(whole, made("scores"))
            assert not torch.equal(whole, made("decisions"))
        else:
            assert torch.equal(whole, made("decisions"))

    def test_norms_are_those_it_takes(self, name: str) -> None:
        attack = ATTACKS.get(name)
        assert make(name).norm in attack.norms
        if "norm" not in inspect.signature(attack).parameters:
            assert attack.norms == (attack.norm,)
            return
        for norm in get_args(Norm):
            if norm in attack.norms:
                assert make(name, norm=norm).norm == norm
            else:
                with pytest.raises(InputError, match="norm"):
                    make(name, norm=norm)

    def test_targeted_form_is_there_if_it_says_so(
        self, name: str, fragile: Classifier, images: Tensor
    ) -> None:
        attack = ATTACKS.get(name)
        if not attack.targetable:
            assert "targeted" not in inspect.signature(attack).parameters
            return
        targets = (fragile(images).argmax(1) + 1) % 3
        result = make(name, targeted=True, **ample(name))(
            fragile, images, targets, generator=generator(0)
        )
        assert torch.equal(result.success, fragile(result.images).argmax(1) == targets)
