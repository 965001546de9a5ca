"""What the service counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters of one service; labels have few values, whatever clients send.

    Args:
        waiting: tells how many images wait.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "jernih_requests", "Requests by route and status.", ["route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "jernih_request_seconds", "Time to the response.", ["route"], buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.batches = Histogram(
            "jernih_batch_images", "Images that passed the model together.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=self.registry,
        )  # fmt: skip
        self.images = Counter(
            "jernih_images", "Images answered, by verdict.", ["verdict"], registry=self.registry
        )
        self.refused = Counter(
            "jernih_refused", "Requests and images refused, by reason.", ["reason"],
            registry=self.registry,
        )  # fmt: skip
        waits = Gauge("jernih_images_waiting", "Images that wait.", registry=self.registry)
        waits.set_function(waiting)

    def page(self) -> bytes:
        """All of it as text."""
        return generate_latest(self.registry)
