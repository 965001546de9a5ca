"""The small trained network of the attacks' tests."""

from tests.attacks.conftest import digits, two_digits

__all__ = ["digits", "two_digits"]
