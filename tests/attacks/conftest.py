"""What the tests of attacks share."""

from __future__ import annotations

import pytest

from tests.attacks.known import Digits, train_digits


@pytest.fixture(scope="session")
def digits() -> Digits:
    return train_digits()


@pytest.fixture(scope="session")
def two_digits() -> Digits:
    return train_digits(classes=2)
