"""What a client is told when a request is refused: a status, a code and one sentence."""

from __future__ import annotations

from typing import Any


class Refused(Exception):  # noqa: N818 - named for what it is about
    """A request that is refused.

    Attributes:
        status: the HTTP status.
        code: the reason in one word, for programs.
        message: the reason in one sentence, for people.
        headers: further headers of the response.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}

    def body(self, path: str = "") -> dict[str, Any]:
        """The response's body: below ``/v2`` in the form of the Open Inference Protocol."""
        if path == "/v2" or path.startswith("/v2/"):
            return {"error": self.message}
        return {"error": {"code": self.code, "message": self.message}}


def busy() -> Refused:
    """There is no room for another image."""
    message = "The service is busy; try again in a second."
    return Refused(503, "busy", message, {"Retry-After": "1"})


def closing() -> Refused:
    """The service is ending."""
    message = "The service is shutting down."
    return Refused(503, "closing", message, {"Retry-After": "30"})


def too_large(limit: int) -> Refused:
    """The body is too large."""
    return Refused(413, "too_large", f"The request is larger than {limit:,} bytes.")


def too_slow(seconds: float) -> Refused:
    """The request did not come in."""
    return Refused(408, "too_slow", f"The request did not come in within {seconds:g} seconds.")


def too_late(seconds: float) -> Refused:
    """The answer did not come in time."""
    return Refused(504, "timeout", f"There was no answer within {seconds:g} seconds.")
