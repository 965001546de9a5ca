"""The model in processes of its own, some of which are killed under load."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch

from jernih.answer import Answerer
from jernih.data.modify import Prepare
from jernih.defended import Defended
from jernih.processes import ProcessDied
from jernih.randomness import generator
from jernih.serve.settings import ServeSettings
from jernih.serve.workers import ModelProcesses
from tests.serve.running import running
from tests.serve.test_http import SIZE, post
from tests.serve.test_http import images as images  # a fixture
from tests.test_answer import model

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def workers() -> Iterator[ModelProcesses]:
    made = ModelProcesses(partial(model, prepare=Prepare(SIZE)), 2, "cpu")
    yield made
    made.close()


def test_answers_are_those_of_one_process(workers: ModelProcesses) -> None:
    batch = torch.rand(3, 3, SIZE, SIZE, generator=generator("workers"))
    expected = Answerer(model(prepare=Prepare(SIZE)), "cpu").answers(batch, areas=True)
    for found, wanted in zip(workers.answers(batch, areas=True), expected, strict=True):
        assert found.probabilities == pytest.approx(wanted.probabilities, abs=1e-5)
        assert found.suspicion == pytest.approx(wanted.suspicion, rel=1e-3)
        assert found.label == wanted.label
        torch.testing.assert_close(found.restored, wanted.restored)
        assert found.areas is not None
        torch.testing.assert_close(found.areas, wanted.areas, atol=1e-3, rtol=0)


def test_nobody_is_left_without_an_answer(images: list[bytes]) -> None:
    made = ModelProcesses(partial(model, prepare=Prepare(SIZE)), 2, "cpu")
    killed: list[int] = []
    done = threading.Event()

    def kill() -> None:
        while not done.wait(0.3) and len(killed) < 4:
            process = made._processes.do(os.getpid)
            os.kill(process, signal.SIGKILL)
            killed.append(process)

    answerer = Answerer(model(prepare=Prepare(SIZE)), "cpu")
    with running(answerer, ServeSettings(timeout_s=200), workers=made) as address:
        expected = [post(address, content).json()["probabilities"] for content in images]
        killer = threading.Thread(target=kill)
        killer.start()
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(lambda k: post(address, images[k % len(images)]), range(60)))
        done.set()
        killer.join()
    assert Counter(one.status_code for one in found) == {200: 60}
    assert len(killed) >= 2
    for k, one in enumerate(found):
        wanted = expected[k % len(images)]
        assert one.json()["probabilities"] == pytest.approx(wanted, abs=1e-4)


class Fatal(Defended):
    """Ends its process over any image, as a fault in C code would."""

    def inspect(self, images: torch.Tensor) -> object:  # type: ignore[override]
        os.abort()


def fatal() -> Defended:
    made = model(prepare=Prepare(SIZE))
    return Fatal(made.classifier, made.purifier, prepare=made.prepare)


def test_a_batch_that_ends_its_process_is_not_asked_for_ever() -> None:
    made = ModelProcesses(fatal, 1, "cpu")
    try:
        with pytest.raises(ProcessDied):
            made.answers(torch.rand(1, 3, SIZE, SIZE))
    finally:
        made.close()


def test_a_number_of_workers_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="workers"):
        ModelProcesses(model, 0)
