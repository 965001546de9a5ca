"""Models of which the answer is known, and a small trained one, for tests of attacks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from torch import Tensor, nn

from jernih.attacks import distance
from jernih.randomness import generator, seeded
from jernih.types import Norm

SIDE = 4


def linear_model(classes: int = 4) -> nn.Module:
    """Logits linear in images (N, 3, 4, 4), with boundaries about 0.2 from their middle in L2."""
    source = generator("linear", classes)
    layer = nn.Linear(3 * SIDE**2, classes)
    layer.weight.data = torch.randn(layer.weight.shape, generator=source)
    layer.bias.data = -0.5 * layer.weight.data.sum(1) + torch.randn(classes, generator=source)
    return nn.Sequential(nn.Flatten(), layer).eval().requires_grad_(False)


def middling(count: int = 16) -> Tensor:
    """Images so far from black and white that no nearest point lies at the ends of the range."""
    return 0.4 + 0.2 * torch.rand(count, 3, SIDE, SIDE, generator=generator("middling"))


def nearest_on_linear(
    model: nn.Module, images: Tensor, labels: Tensor, norm: Norm
) -> tuple[Tensor, Tensor]:
    """Nearest points of other classes and their distances, by Hölder's inequality."""
    layer = next(m for m in model.modules() if isinstance(m, nn.Linear))
    points, sizes = [], []
    for image, label in zip(images, labels, strict=True):
        best = (float("inf"), image)
        for other in range(layer.out_features):
            if other == int(label):
                continue
            slope = (layer.weight[other] - layer.weight[label]).view_as(image)
            gap = -float((slope * image).sum() + layer.bias[other] - layer.bias[label])
            if norm == "linf":
                size, step = gap / float(slope.abs().sum()), slope.sign()
            elif norm == "l2":
                size, step = gap / float(slope.norm()), slope / slope.norm()
            else:
                largest = slope.abs() == slope.abs().max()
                size, step = gap / float(slope.abs().max()), slope.sign() * largest
            best = min(best, (size, image + size * step), key=lambda pair: pair[0])
        sizes.append(best[0])
        points.append(best[1])
    return torch.stack(points), torch.tensor(sizes)


@dataclass(frozen=True)
class Digits:
    """A small network that tells 8 × 8 digits apart, with images that it gets right.

    More than half of the pixels are black or white.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor


def train_digits(classes: int = 10, count: int = 60) -> Digits:
    """Train the network, in about a second."""
    digits = load_digits(n_class=classes)
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target, dtype=torch.int64)
    with seeded("digits"):
        order = torch.randperm(len(images))
        images, labels = images[order], labels[order]
        model = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(12, 24, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(384, classes),
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for step in range(120):
            batch = slice(step * 64 % 1000, step * 64 % 1000 + 64)
            if len(images) < 1064:
                batch = slice(step * 64 % 200, step * 64 % 200 + 64)
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        model.eval().requires_grad_(False)
    right = model(images).argmax(1) == labels
    return Digits(model, images[right][-count:].clone(), labels[right][-count:].clone())


def inner(digits: Digits, count: int = 60) -> Digits:
    """Some with no pixel near black or white, where attacks differ in how they clip."""
    images = 0.1 + 0.8 * digits.images
    right = digits.model(images).argmax(1) == digits.labels
    return Digits(digits.model, images[right][:count], digits.labels[right][:count])


def agree(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    ours: Tensor,
    theirs: Tensor,
    norm: Norm,
    targeted: bool = False,
) -> None:
    """Assert that two attacks fool as many images, with median sizes within 5 % of each other.

    As many: our share lies in the 95 % interval of theirs.
    """
    mine, other = ((model(x).argmax(1) == labels) == targeted for x in (ours, theirs))
    assert share_agrees(mine, other)
    both = mine & other
    assert int(both.sum()) > len(labels) // 2
    median, reference = (distance(images, made, norm)[both].median() for made in (ours, theirs))
    torch.testing.assert_close(median, reference, rtol=0.05, atol=0)


def share_agrees(ours: Tensor, theirs: Tensor) -> bool:
    """Whether the share of what holds in ``ours`` lies in the 95 % interval of that in theirs."""
    interval = binomtest(int(theirs.sum()), len(theirs)).proportion_ci(method="wilson")
    return bool(interval.low <= float(ours.float().mean()) <= interval.high)
