"""The service over real HTTP: answers, refusals, limits, batches, and its end."""

from __future__ import annotations

import base64
import io
import json
import logging
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from jernih.answer import Answerer
from jernih.data.images import read_image, write_png
from jernih.data.modify import Prepare
from jernih.randomness import generator
from tests.data.test_dicom import write as write_dicom
from tests.helpers import wait_until
from tests.serve.running import running
from tests.test_answer import model

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytestmark = pytest.mark.filterwarnings("ignore")  # the server's, in its thread

SIZE = 48


class Slow(Answerer):
    """Takes its time, and notes how many images came at once."""

    seconds = 0.0

    def answers(self, batch: Tensor, *, areas: bool = False) -> Any:
        self.seen = [*getattr(self, "seen", []), len(batch)]
        time.sleep(self.seconds)
        return super().answers(batch, areas=areas)


def answerer(seconds: float = 0.0) -> Slow:
    made = Slow(model("reject-flagged", prepare=Prepare(SIZE)), "cpu")
    made.seconds = seconds
    return made


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("images")
    return [
        write_png(
            folder / f"{k}.png", torch.rand(3, 40 + k, 50, generator=generator("http", k))
        ).read_bytes()
        for k in range(8)
    ]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    from jernih.serve.settings import ServeSettings

    settings = ServeSettings(max_bytes=400_000, max_pixels=1_000_000, max_images=9)
    with running(answerer(), settings) as found:
        yield found


def post(address: str, content: bytes, **query: Any) -> Any:
    files = {"image": ("patient-7.png", content)}
    return httpx.post(f"{address}/v1/classify", files=files, params=query, timeout=200)


def test_an_answer_is_what_the_model_says(
    address: str, images: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(images[0])
    expected = Answerer(model("reject-flagged", prepare=Prepare(SIZE)), "cpu")(
        [read_image(tmp_path / "a.png")], areas=True
    )[0]
    found = post(address, images[0], restored=True, areas=True)
    assert found.status_code == 200
    told = found.json()
    assert told["label"] == expected.label
    assert told["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
    assert told["suspicion"] == pytest.approx(expected.suspicion, rel=1e-3)
    assert told["flagged"] == expected.flagged
    assert told["action"] == expected.action
    assert told["verdict"] in ("rejected", "not suspicious")
    restored = np.asarray(Image.open(io.BytesIO(base64.b64decode(told["restored_png"]))))
    wanted = (expected.restored.permute(1, 2, 0).numpy() * 255).round()
    assert np.abs(restored.astype(int) - wanted).max() <= 1
    areas = Image.open(io.BytesIO(base64.b64decode(told["areas_png"])))
    assert areas.size == (SIZE, SIZE)
    assert found.headers["x-content-type-options"] == "nosniff"
    assert len(found.headers["x-request-id"]) == 16
    plain = post(address, images[0]).json()
    assert "restored_png" not in plain
    assert "areas_png" not in plain


def test_other_ways_to_send_an_image(address: str, images: list[bytes]) -> None:
    expected = post(address, images[1]).json()["probabilities"]
    text = base64.b64encode(images[1]).decode()
    for body in ({"image": text}, {"image": f"data:image/png;base64,{text}"}):
        found = httpx.post(f"{address}/v1/classify", json=body, timeout=200)
        assert found.json()["probabilities"] == pytest.approx(expected, abs=1e-5)
    raw = httpx.post(
        f"{address}/v1/classify", content=images[1], headers={"content-type": "image/png"}
    )
    assert raw.json()["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_several_at_once(address: str, images: list[bytes]) -> None:
    broken = [*images[:2], b"no image", images[2]]
    files = [("images", (f"{k}.png", content)) for k, content in enumerate(broken)]
    found = httpx.post(f"{address}/v1/classify/batch", files=files, timeout=60).json()["results"]
    assert [("error" in one) for one in found] == [False, False, True, False]
    assert found[2]["error"]["code"] == "unknown_type"
    for place in (0, 1, 3):
        alone = post(address, broken[place]).json()
        assert found[place]["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-5)
    listed = [base64.b64encode(content).decode() for content in broken]
    again = httpx.post(
        f"{address}/v1/classify/batch", json={"images": [*listed, "http://x/y", 3]}, timeout=60
    ).json()["results"]
    assert [one.get("label") for one in again[:4]] == [one.get("label") for one in found]
    assert [one["error"]["code"] for one in again[4:]] == ["no_urls", "invalid"]
    many = httpx.post(f"{address}/v1/classify/batch", json={"images": listed * 3})
    assert many.status_code == 413


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header says that it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        mark = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + mark

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    data = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


PLAIN = Image.new("RGB", (20, 20), (10, 20, 30))
JPEG = saved(PLAIN, "JPEG")
PNG = saved(PLAIN, "PNG")
NOISE = saved(Image.effect_noise((30, 30), 50), "PNG")


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 422, "empty"),
        (b"hello", 415, "not a PNG, JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not a PNG"),
        (PNG[:60], 422, "cannot be read"),
        (JPEG[: len(JPEG) // 2], 422, "cannot be read"),
        (bomb(60_000, 60_000), 413, "more than 1,000,000"),
        (bomb(2_000, 600), 413, "2000 × 600 pixels, more than 1,000,000"),
        (PNG + b"PK\x03\x04 a zip", 422, "after the end"),
        (NOISE[:128] + b"DICM" + NOISE[132:], 422, "two kinds"),
        (saved(PLAIN, "GIF"), 415, "not a PNG"),
        (
            saved(PLAIN, "PNG", save_all=True, append_images=[PLAIN.point(lambda v: v + 9)]),
            422,
            "frames",
        ),
        (saved(PLAIN.convert("RGBA").point(lambda v: v // 2), "PNG"), 422, "transparent"),
        (b"\0" * 128 + b"DICM" + b"\0" * 40, 422, "cannot be read"),
    ],
)  # fmt: skip
def test_bad_images_get_a_sentence(address: str, content: bytes, status: int, words: str) -> None:
    found = post(address, content)
    assert found.status_code == status
    error = found.json()["error"]
    assert words in error["message"]
    assert error["message"].endswith(".")
    assert "jernih-serve-" not in found.text  # the name of its temporary folder
    assert "Traceback" not in found.text
    assert httpx.get(f"{address}/health").status_code == 200


def test_images_of_a_clinic(address: str, tmp_path: Path) -> None:
    pixels = np.arange(40 * 40, dtype=np.uint16).reshape(40, 40)
    windowless = write_dicom(tmp_path / "a.dcm", pixels).read_bytes()
    assert post(address, windowless).status_code == 200
    frames = write_dicom(tmp_path / "b.dcm", pixels, NumberOfFrames=3).read_bytes()
    assert "frames" in post(address, frames).json()["error"]["message"]
    deep = saved(Image.fromarray(pixels), "PNG")
    assert post(address, deep).status_code == 200
    grey = saved(PLAIN.convert("L"), "TIFF")
    assert post(address, grey).status_code == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"json": {"image": "§§§"}}, 422),
        ({"json": {"image": 7}}, 422),
        ({"json": {}}, 422),
        ({"json": []}, 422),
        ({"json": {"image": "https://example.org/a.png"}}, 422),
        ({"json": {"image": "data:image/png,abc"}}, 422),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        ({"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 400),
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=a"}}, 400),
        ({"files": {"other": b"x"}}, 422),
        ({"files": [("image", JPEG), ("image", JPEG)]}, 400),
        ({"json": {"image": base64.b64encode(JPEG).decode()}, "params": {"areas": "perhaps"}}, 422),
    ],
)
def test_bad_requests_get_a_sentence(address: str, request_: dict[str, Any], status: int) -> None:
    found = httpx.post(f"{address}/v1/classify", timeout=60, **request_)
    assert found.status_code == status, found.text
    assert found.json()["error"]["message"]
    assert "Traceback" not in found.text


def test_addresses_that_are_not(address: str) -> None:
    assert httpx.get(f"{address}/nowhere").json()["error"]["code"] == "not_found"
    assert httpx.get(f"{address}/v1/classify").status_code == 405
    assert httpx.get(f"{address}/docs/files/../../../../etc/passwd").status_code == 404


def test_large_bodies_are_refused_as_they_come(address: str) -> None:
    assert post(address, b"\x89PNG" + b"x" * 500_000).status_code == 413

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 50_000

    found = httpx.post(
        f"{address}/v1/classify", content=pieces(), headers={"content-type": "image/png"}
    )
    assert found.status_code == 413
    assert found.json()["error"]["code"] == "too_large"


def test_requests_at_once_pass_the_model_together(images: list[bytes]) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    from jernih.serve.settings import ServeSettings

    def counted(address: str) -> dict[tuple[str, ...], float]:
        page = httpx.get(f"{address}/metrics").text
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }

    asked = answerer(0.05)
    with running(asked, ServeSettings(wait_ms=200, batch=8)) as address:
        alone = [post(address, content).json()["probabilities"] for content in images]
        asked.seen.clear()
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda content: post(address, content).json(), images))
        assert max(asked.seen) > 1
        assert len(asked.seen) < len(images)
        for one, other in zip(found, alone, strict=True):
            assert one["probabilities"] == pytest.approx(other, abs=1e-4)
        # A request is counted after its answer went out.
        answered = ("jernih_requests_total", "/v1/classify", "200")
        wait_until(lambda: counted(address)[answered] == 16)
        values = counted(address)
    assert values[answered] == 16
    assert values["jernih_batch_images_sum",] >= 16
    assert values["jernih_images_waiting",] == 0
    assert sum(v for (name, *_), v in values.items() if name == "jernih_images_total") == 16


def test_a_full_service_says_so(images: list[bytes]) -> None:
    from jernih.serve.settings import ServeSettings

    settings = ServeSettings(batch=1, queue=2, wait_ms=0)
    with running(answerer(0.5), settings) as address, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda content: post(address, content), images))
    codes = [one.status_code for one in found]
    assert set(codes) == {200, 503}
    assert codes.count(200) >= 2
    refused = next(one for one in found if one.status_code == 503)
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["code"] == "busy"


def test_answers_that_come_too_late(images: list[bytes]) -> None:
    from jernih.serve.settings import ServeSettings

    asked = answerer()
    with running(asked, ServeSettings(timeout_s=0.3, batch=1)) as address:
        asked.seconds = 1.0
        assert post(address, images[0]).status_code == 504
        asked.seconds = 0.0
        time.sleep(1.0)
        assert post(address, images[0]).status_code == 200


def test_nothing_is_computed_for_clients_that_left(images: list[bytes]) -> None:
    from jernih.serve.settings import ServeSettings

    asked = answerer(0.6)
    with running(asked, ServeSettings(batch=1, wait_ms=0)) as address:
        asked.seen.clear()
        first = threading.Thread(target=post, args=(address, images[0]))
        first.start()
        time.sleep(0.2)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{address}/v1/classify", files={"image": images[1]}, timeout=0.1)
        first.join()
        time.sleep(0.9)
        assert asked.seen == [1]


def test_what_was_accepted_is_finished(images: list[bytes]) -> None:
    asked = answerer()
    results: list[int] = []
    with running(asked) as address:
        asked.seconds = 0.8
        threads = [
            threading.Thread(target=lambda c=c: results.append(post(address, c).status_code))
            for c in images[:3]
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.4)
    for thread in threads:
        thread.join()
    assert results == [200, 200, 200]


def test_a_token(images: list[bytes]) -> None:
    with running(answerer(), token="sesame") as address:  # noqa: S106 - a test's
        assert post(address, images[0]).status_code == 401
        assert httpx.get(f"{address}/health").status_code == 200
        for shown in ("Bearer wrong", "Basic sesame", "Bearer"):
            found = httpx.get(f"{address}/v1/model", headers={"authorization": shown})
            assert found.status_code == 401
            assert found.headers["www-authenticate"] == "Bearer"
        found = httpx.get(f"{address}/v1/model", headers={"authorization": "Bearer sesame"})
        assert found.json()["classes"] == ["a", "b", "c"]


def test_an_error_of_ours_is_told_by_its_number(
    images: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    asked = answerer()
    with running(asked) as address:

        def broken(*_: Any, **__: Any) -> Any:
            raise RuntimeError("the secret of the patient")

        asked.answers = broken  # type: ignore[method-assign]
        found = post(address, images[0])
        assert found.status_code == 500
        assert "secret" not in found.text
        assert found.headers["x-request-id"] in found.json()["error"]["message"]
        del asked.answers
        assert post(address, images[0]).status_code == 200


def test_logs_tell_nothing_of_the_content(
    address: str, images: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "jernih.serve"):
        post(address, images[0])
        post(address, b"broken")
        httpx.get(f"{address}/v1/patient-7.png")
        # A request is logged after its answer went out.
        wait_until(lambda: '"status": 404' in caplog.text)
    lines = [
        json.loads(record.getMessage())
        for record in caplog.records
        if record.name == "jernih.serve"
    ]
    assert [line["status"] for line in lines] == [200, 415, 404]
    assert set(lines[0]) == {"request", "method", "route", "status", "bytes", "ms"}
    assert lines[2]["route"] == "other"
    assert "patient" not in caplog.text


def test_documentation_without_a_network(address: str) -> None:
    page = httpx.get(f"{address}/docs").text
    assert "//cdn" not in page
    assert httpx.get(f"{address}/docs/files/swagger-ui-bundle.js").status_code == 200
    paths = httpx.get(f"{address}/openapi.json").json()["paths"]
    assert "/v1/classify" in paths
    assert httpx.get(f"{address}/").headers["location"] == "/docs"
