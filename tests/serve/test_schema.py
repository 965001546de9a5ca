"""The service keeps what its OpenAPI says, whatever schemathesis makes of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from jernih.serve.settings import ServeSettings
from tests.serve.running import running
from tests.serve.test_http import answerer

schemathesis = pytest.importorskip("schemathesis")
pytest.importorskip("fastapi")
pytestmark = pytest.mark.filterwarnings("ignore")  # the server's, in its thread

SLOWEST = 5.0
"""Seconds within which every request has to be answered."""
EXAMPLES = int(os.environ.get("JERNIH_SCHEMA_EXAMPLES", "12"))
"""Requests for each operation, of those that fit its description and of those that do not."""
OPERATIONS = [
    "GET /health", "GET /metrics", "GET /v1/model", "POST /v1/classify", "POST /v1/classify/batch",
    "GET /v2", "GET /v2/health/live", "GET /v2/health/ready", "GET /v2/models/{model}",
    "GET /v2/models/{model}/ready", "POST /v2/models/{model}/infer",
]  # fmt: skip
NAME = "ours"


@pytest.fixture(scope="module")
def operations() -> Iterator[dict[str, Any]]:
    limits = ServeSettings(name=NAME, max_bytes=400_000, max_pixels=1_000_000, max_images=9)
    with running(answerer(), limits) as address:
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        found = [result.ok() for result in schema.get_all_operations()]
        yield {operation.label: operation for operation in found}


def test_every_operation_is_tried(operations: dict[str, Any]) -> None:
    assert sorted(operations) == sorted(OPERATIONS)


@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, "positive") for name in OPERATIONS]
    # The others take nothing that could be wrong.
    + [(name, "negative") for name in OPERATIONS if name.startswith("POST")],
)
def test_as_its_description_says(
    name: str,
    mode: str,
    operations: dict[str, Any],
    record_property: Callable[[str, object], None],
) -> None:
    """No 5xx, in time, and status, content type and body as they are described.

    How many requests were made stands in the file of `--junitxml`.
    """
    operation = operations[name]
    seen: list[int] = []
    # Random bytes are a well-formed request, and still no image.
    without = [schemathesis.checks.positive_data_acceptance]
    if name == "POST /v1/classify/batch":  # each image is answered or refused by itself
        without.append(schemathesis.checks.negative_data_rejection)

    @given(operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def tried(case: Any) -> None:
        if "model" in (case.path_parameters or {}) and len(seen) % 4:
            case.path_parameters["model"] = NAME
        response = case.call(timeout=SLOWEST)
        assert response.elapsed < SLOWEST
        case.validate_response(response, excluded_checks=without)
        seen.append(response.status_code)

    tried()
    record_property("requests", len(seen))
    assert len(seen) >= (EXAMPLES if mode == "negative" else 1)
    if mode == "negative" and len(without) == 1:
        assert [status for status in seen if 400 <= status < 500]
