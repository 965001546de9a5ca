from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jernih.assess import Assessment
from jernih.purifiers import Identity
from jernih.types import Threat
from jernih.validate import InputError
from tests.assess.examples import assessment, defended_model, run


@pytest.mark.parametrize("kind", ["with detector", "identity"])
def test_json_gives_the_same_assessment_back(kind: str, tmp_path: Path) -> None:
    found = (
        assessment() if kind == "with detector" else run(defended_model(Identity(), detector=False))
    )
    path = found.save(tmp_path / "assessment.json")
    read = Assessment.load(path)
    assert read == found
    assert read.observations is None
    assert read.to_dict() == json.loads(path.read_text())


def test_older_json_without_the_newer_fields_of_a_threat_is_read() -> None:
    values = assessment().to_dict()
    for part in walk(values):
        if isinstance(part.get("threat"), dict):
            del part["threat"]["detector_aware"]
    assert Assessment.from_dict(values) == assessment()


def test_json_is_strict() -> None:
    json.dumps(assessment().to_dict(), allow_nan=False)


def walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from walk(item)


def test_no_accuracy_stands_without_threat_model_count_and_interval() -> None:
    holders = [part for part in walk(assessment().to_dict()) if "accuracy" in part]
    assert len(holders) == 10
    for holder in holders:
        assert holder["threat"] is not None or holder["attack"] == "none"
        for name in ("accuracy", "accuracy_8bit", "balanced_accuracy"):
            if holder[name] is not None:
                assert holder[name]["n"] == holder["n"] == 20
                assert holder[name]["low"] <= holder[name]["value"] <= holder[name]["high"]


def test_results_carry_what_is_needed_to_get_them_again() -> None:
    found = assessment()
    assert found.plan["seed"] == 0
    assert found.plan["attack"]["name"] == "fgsm"
    assert found.models["purifier"] == {"name": "smooth"}
    assert found.models["classifier"] == {"name": "template"}
    assert found.meta == {"created": "2026-01-01T00:00:00Z"}
    assert {"python", "torch", "jernih"} <= set(found.environment["versions"])


def test_an_unknown_condition_is_refused() -> None:
    with pytest.raises(InputError, match="condition"):
        assessment().condition("attacked", Threat("linf", 0.5))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema_version": 99}, "schema_version"),
        ({"conditions": "none"}, "conditions"),
        ({"majority": {"value": 1}}, "majority"),
    ],
)
def test_json_of_another_layout_is_refused_in_one_line(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        Assessment.from_dict({**assessment().to_dict(), **change})
    assert "\n" not in str(caught.value)


def test_a_file_that_holds_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(InputError, match="JSON object"):
        Assessment.load(tmp_path / "a.json")
