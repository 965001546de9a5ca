"""The Open Inference Protocol, spoken by Triton's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from jernih.answer import Answerer
from jernih.data.modify import Prepare
from jernih.randomness import generator
from jernih.serve.settings import ServeSettings
from tests.serve.running import running
from tests.test_answer import model

httpx = pytest.importorskip("httpx")
pytestmark = pytest.mark.filterwarnings("ignore")

SIZE = 32
IMAGES = torch.rand(3, 3, SIZE, SIZE, generator=generator("protocol"))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    answerer = Answerer(model(prepare=Prepare(SIZE)), "cpu")
    with running(answerer, ServeSettings(name="mine", max_images=4)) as found:
        yield found


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client(binary: bool, address: str) -> None:
    client_of = pytest.importorskip("tritonclient.http")
    client = client_of.InferenceServerClient(address.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mine")
    metadata = client.get_model_metadata("mine")
    assert metadata["inputs"][0]["shape"] == [-1, 3, SIZE, SIZE]
    given = client_of.InferInput("images", list(IMAGES.shape), "FP32")
    given.set_data_from_numpy(IMAGES.numpy(), binary_data=binary)
    wanted = [
        client_of.InferRequestedOutput(name, binary_data=binary)
        for name in ("probabilities", "suspicion", "flagged", "restored")
    ]
    found = client.infer("mine", [given], outputs=wanted, request_id="7")
    expected = model().inspect(IMAGES)
    np.testing.assert_allclose(
        found.as_numpy("probabilities"), expected.logits.softmax(1).numpy(), atol=1e-4
    )
    np.testing.assert_allclose(found.as_numpy("restored"), expected.restored.numpy(), atol=1e-5)
    assert expected.scores is not None
    assert expected.flagged is not None
    np.testing.assert_allclose(found.as_numpy("suspicion"), expected.scores.numpy(), rtol=1e-2)
    assert found.as_numpy("flagged").tolist() == expected.flagged.tolist()
    assert found.get_response()["id"] == "7"
    usual = client.infer("mine", [given])
    assert usual.as_numpy("restored") is None
    assert usual.as_numpy("probabilities").shape == (3, 3)


def good() -> dict[str, Any]:
    shape = [1, 3, SIZE, SIZE]
    return {
        "inputs": [
            {
                "name": "images",
                "datatype": "FP32",
                "shape": shape,
                "data": IMAGES[:1].flatten().tolist(),
            }
        ]
    }


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 200),
        ({"name": "x"}, 422),
        ({"datatype": "INT8"}, 422),
        ({"shape": [1, 3, 8, 8]}, 422),
        ({"shape": [1, SIZE, SIZE, 3]}, 422),
        ({"shape": [1, 3, SIZE]}, 422),
        ({"shape": [0, 3, SIZE, SIZE]}, 422),
        ({"shape": [True, 3, SIZE, SIZE]}, 422),
        ({"shape": [9, 3, SIZE, SIZE]}, 413),
        ({"shape": "abc"}, 422),
        ({"data": [1.0]}, 422),
        ({"data": ["x"]}, 422),
        ({"data": [2.0] * (3 * SIZE * SIZE)}, 422),
        ({"data": [float("nan")] * (3 * SIZE * SIZE)}, 422),
        ({"data": None}, 422),
        ({"data": {"a": 1}}, 422),
        ({"parameters": {"binary_data_size": 12}}, 422),
    ],
)
def test_what_is_refused(changes: dict[str, Any], status: int, address: str) -> None:
    body = good()
    body["inputs"][0].update(changes)
    found = httpx.post(f"{address}/v2/models/mine/infer", content=json.dumps(body), timeout=60)
    assert found.status_code == status, found.text
    if status != 200:
        assert found.json()["error"].endswith(".")


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b"[]", {}, 422),
        (b"{}", {}, 422),
        (json.dumps({**good(), "outputs": [{"name": "x"}]}).encode(), {}, 422),
        (json.dumps({**good(), "outputs": [3]}).encode(), {}, 422),
        (b"{}", {"Inference-Header-Content-Length": "99"}, 400),
        (b"{}", {"Inference-Header-Content-Length": "x"}, 400),
    ],
)
def test_bad_bodies(body: bytes, headers: dict[str, str], status: int, address: str) -> None:
    found = httpx.post(f"{address}/v2/models/mine/infer", content=body, headers=headers)
    assert found.status_code == status, found.text


def test_other_models_are_not_there(address: str) -> None:
    assert httpx.get(f"{address}/v2/models/other").status_code == 404
    assert httpx.get(f"{address}/v2").json()["name"] == "jernih"


def test_tritons_client_can_say_what_was_wrong(address: str) -> None:
    client_of = pytest.importorskip("tritonclient.http")
    client = client_of.InferenceServerClient(address.removeprefix("http://"))
    given = client_of.InferInput("images", [1, 3, 8, 8], "FP32")
    given.set_data_from_numpy(np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(client_of.InferenceServerException, match=r"shape has to be \[N, 3, 32, 32"):
        client.infer("mine", [given])
    with pytest.raises(client_of.InferenceServerException, match="no model of this name"):
        client.get_model_metadata("other")
