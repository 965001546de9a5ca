"""Asking a model in parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from jernih.attacks import asking
from jernih.attacks.asking import ask, parts, slope
from jernih.attacks.losses import Loss, cross_entropy, margin
from jernih.classifiers import Classifier
from jernih.validate import InputError


class Counting(nn.Module):
    """Notes how many images it is asked about at once."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        logits: Tensor = self.model(images)
        return logits


@pytest.fixture
def by_four(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "AT_ONCE", 4 * images[0, 0].numel() + 3)


def test_parts_cover_the_batch() -> None:
    def sizes(count: int, side: int) -> list[int]:
        found = parts(torch.zeros(count, 1, side, side))
        rows = list(range(count))
        assert [row for part in found for row in rows[part]] == rows
        return [len(rows[part]) for part in found]

    assert sizes(20, 224) == [8, 8, 4]
    assert sizes(8, 224) == [8]
    assert sizes(3, 2000) == [1, 1, 1]
    assert sizes(300, 28) == [300]


def test_an_accelerator_gets_all_at_once() -> None:
    assert parts(torch.zeros(99, 3, 224, 224, device="meta")) == [slice(0, 99)]


@pytest.mark.usefixtures("by_four")
@pytest.mark.parametrize("loss", [cross_entropy, margin])
def test_slope(classifier: Classifier, images: Tensor, labels: Tensor, loss: Loss) -> None:
    model = Counting(classifier).eval()
    with torch.no_grad():
        gradient, logits = slope(model, images, labels, loss)
    assert model.seen == [4, 2]
    leaf = images.clone().requires_grad_(True)
    answers = classifier(leaf)
    (wanted,) = torch.autograd.grad(loss(answers, labels).sum(), leaf)
    torch.testing.assert_close(gradient, wanted)
    torch.testing.assert_close(logits, answers.detach())
    assert not gradient.requires_grad
    assert not logits.requires_grad
    assert all(p.grad is None for p in classifier.parameters())


@pytest.mark.usefixtures("by_four")
def test_ask(classifier: Classifier, images: Tensor) -> None:
    model = Counting(classifier).eval()
    logits = ask(model, images)
    assert model.seen == [4, 2]
    assert not logits.requires_grad
    torch.testing.assert_close(logits, classifier(images).detach())


def test_what_is_not_logits_is_refused(images: Tensor, labels: Tensor) -> None:
    for question in (
        lambda: ask(nn.Identity(), images),
        lambda: slope(nn.Identity(), images, labels),
    ):
        with pytest.raises(InputError, match="model output"):
            question()
