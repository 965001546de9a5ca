"""Losses against their definitions, image by image."""

from __future__ import annotations

import pytest
import torch

from jernih.attacks.losses import cross_entropy, dlr, margin, targeted_dlr
from jernih.randomness import generator
from jernih.validate import InputError

LOGITS = torch.randn(20, 5, generator=generator("logits"))
LABELS = torch.arange(20) % 5
TARGETS = (LABELS + 2) % 5


def test_margin_and_cross_entropy() -> None:
    for row, label, found, entropy in zip(
        LOGITS, LABELS, margin(LOGITS, LABELS), cross_entropy(LOGITS, LABELS), strict=True
    ):
        others = [float(v) for k, v in enumerate(row) if k != int(label)]
        assert float(found) == pytest.approx(max(others) - float(row[label]), abs=1e-6)
        assert (float(found) > 0) == (int(row.argmax()) != int(label))
        assert float(entropy) == pytest.approx(-float(row.log_softmax(0)[label]), abs=1e-5)


def test_dlr() -> None:
    rows = zip(LOGITS, LABELS, TARGETS, dlr(LOGITS, LABELS), strict=True)
    aimed = targeted_dlr(LOGITS, LABELS, TARGETS)
    for (row, label, target, found), wanted in zip(rows, aimed, strict=True):
        first, _, third, fourth = sorted(map(float, row), reverse=True)[:4]
        others = max(float(v) for k, v in enumerate(row) if k != int(label))
        assert float(found) == pytest.approx((others - float(row[label])) / (first - third), 1e-4)
        scale = first - (third + fourth) / 2
        assert float(wanted) == pytest.approx(float(row[target] - row[label]) / scale, 1e-4)
    torch.testing.assert_close(dlr(7 * LOGITS + 3, LABELS), dlr(LOGITS, LABELS))
    torch.testing.assert_close(targeted_dlr(7 * LOGITS + 3, LABELS, TARGETS), aimed)


def test_few_classes_are_refused() -> None:
    with pytest.raises(InputError, match="three or more classes"):
        dlr(LOGITS[:, :2], LABELS % 2)
    with pytest.raises(InputError, match="four or more classes"):
        targeted_dlr(LOGITS[:, :3], LABELS % 3, TARGETS % 3)
