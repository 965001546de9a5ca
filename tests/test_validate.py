"""Every check says argument, expected and got."""

from __future__ import annotations

import pytest
import torch

from jernih.validate import (
    InputError,
    check_choice,
    check_count,
    check_images,
    check_labels,
    check_logits,
    check_number,
    parse_eps,
)


def test_rounding_outside_the_range_is_clamped() -> None:
    images = torch.zeros(1, 3, 2, 2) - 3e-8
    assert float(check_images(images).min()) == 0
    inside = torch.rand(1, 3, 2, 2)
    assert check_images(inside) is inside
    with pytest.raises(InputError, match="inside the classifier"):
        check_images(torch.full((1, 3, 2, 2), 1 + 1e-4))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("picture", r"images: expected a torch\.Tensor; got a str"),
        (torch.rand(3, 4, 4), r"shape \(N, C, H, W\); got \(3, 4, 4\)"),
        (torch.rand(0, 3, 4, 4), "non-empty"),
        (torch.rand(1, 3, 4, 4).double(), r"float32; got torch\.float64"),
        (torch.full((1, 3, 4, 4), float("inf")), "finite values"),
        (torch.full((1, 3, 4, 4), 255.0), r"values in \[0, 1\]; got values from 255 to 255"),
    ],
)
def test_bad_images(images: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_images(images)


def test_bad_labels() -> None:
    check_labels(torch.tensor([0, 1]), 2, 2)
    with pytest.raises(InputError, match="got -1"):
        check_labels(torch.tensor([0, -1]), 2, 2)
    with pytest.raises(InputError, match="Tensor; got a list"):
        check_labels([0, 1], 2, 2)  # type: ignore[arg-type]


def test_bad_logits() -> None:
    check_logits(torch.rand(2, 2), 2)
    for bad in (torch.rand(2, 1), torch.rand(3, 2), torch.ones(2, 2).long(), None):
        with pytest.raises(InputError, match="logits"):
            check_logits(bad, 2)
    with pytest.raises(InputError, match="finite logits"):
        check_logits(torch.full((2, 2), float("nan")), 2)


def test_eps() -> None:
    assert parse_eps("4/255") == 4 / 255
    assert parse_eps(" 0.03 ") == 0.03
    assert parse_eps(0) == 0
    for bad in (-0.1, 1.01, float("nan"), float("inf"), True, "x", "1/0", "", "1e99999"):
        with pytest.raises(InputError, match="eps: expected"):
            parse_eps(bad)


def test_choice_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match=r"attack: expected one of 'fgsm'; got 'fsgm' \(nearest"):
        check_choice("attack", "fsgm", ["fgsm"])
    with pytest.raises(InputError, match=r"got 'zzz'$"):
        check_choice("attack", "zzz", ["fgsm"])


def test_number() -> None:
    assert check_number("fpr", 1, 0, 1) == 1.0
    with pytest.raises(InputError, match=r"fpr: expected a number in \[0, 1\]; got '1'"):
        check_number("fpr", "1", 0, 1)  # type: ignore[arg-type]


def test_messages_are_one_line() -> None:
    assert "\n" not in str(InputError("a", "b\nc", "d\n\ne"))


def test_check_count() -> None:
    assert check_count("steps", 3) == 3
    for value in (0, -1, 2.0, True, "3"):
        with pytest.raises(InputError, match="steps: expected a whole number from 1 on"):
            check_count("steps", value)  # type: ignore[arg-type]
    assert check_count("restarts", 0, 0) == 0
