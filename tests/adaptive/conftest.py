"""The small trained network of the attacks' tests."""

from tests.attacks.conftest import digits

__all__ = ["digits"]
