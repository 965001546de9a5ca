"""Processes that return, raise, hang, die and are killed."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jernih.data.unreadable import UnreadableImage
from jernih.processes import ProcessDied, Processes
from tests.helpers import wait_until

_begun = 0


def begin(number: int) -> None:
    global _begun
    _begun = number


def begun() -> int:
    return _begun


def refuse() -> None:
    raise UnreadableImage("a.png", "it is no image")


def die(status: int) -> None:
    os._exit(status)


def fault() -> None:
    ctypes.string_at(0)


def kill_once(mark: str) -> str:
    """Kills its own process the first time, as somebody from outside would."""
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    made = Processes(2, begin, (7,))
    yield made
    made.close()


def test_work_is_done_elsewhere(two: Processes) -> None:
    assert two.do(begun) == 7
    assert two.do(os.getpid) != os.getpid()
    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(lambda k: two.do(divmod, k, 3), range(40))) == [
            divmod(k, 3) for k in range(40)
        ]


def test_what_is_raised_comes_back_whole(two: Processes) -> None:
    with pytest.raises(UnreadableImage, match=r"image a\.png: .* it is no image") as error:
        two.do(refuse)
    assert error.value.reason == "it is no image"
    with pytest.raises(ZeroDivisionError):
        two.do(divmod, 1, 0)
    with pytest.raises(RuntimeError, match="pickle"):
        two.do(threading.Lock)


def test_what_takes_too_long_is_ended(two: Processes) -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        two.do(time.sleep, 60, seconds=0.3)
    assert time.monotonic() - start < 10
    assert two.do(begun) == 7


@pytest.mark.parametrize("work", [(die, 0), (die, 3), (fault,)])
def test_work_that_ends_its_process(two: Processes, work: tuple[object, ...]) -> None:
    with pytest.raises(ProcessDied):
        two.do(*work)  # type: ignore[arg-type]
    assert two.do(begun) == 7


def test_work_is_begun_again_where_its_process_was_killed(two: Processes, tmp_path: Path) -> None:
    assert two.do(kill_once, str(tmp_path / "mark")) == "done"


def test_processes_that_die_while_idle_are_replaced(two: Processes) -> None:
    for _ in range(3):
        os.kill(two.do(os.getpid), signal.SIGKILL)
        assert two.do(begun) == 7


def test_processes_are_replaced_after_some_work() -> None:
    made = Processes(1, begin, (1,), tasks=2)
    try:
        first, second, third = (made.do(os.getpid) for _ in range(3))
    finally:
        made.close()
    assert first == second != third


def test_the_end_does_not_wait_for_work() -> None:
    made = Processes(1, begin, (1,))
    made.do(begun)
    ends: list[BaseException] = []

    def work() -> None:
        try:
            made.do(time.sleep, 60)
        except ProcessDied as error:
            ends.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.3)
    made.close()
    thread.join(10)
    assert len(ends) == 1
    with pytest.raises(ProcessDied):
        made.do(begun)


def test_the_end_and_the_work_do_not_close_a_line_twice() -> None:
    for turn in range(8):
        made = Processes(2, begin, (1,))
        made.do(begun)
        ends: list[BaseException] = []

        def work(made: Processes = made, ends: list[BaseException] = ends) -> None:
            try:
                made.do(time.sleep, 60)
            except BaseException as error:
                ends.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.04 * turn)
        made.close()
        for thread in threads:
            thread.join(30)
        assert [type(end) for end in ends] == 3 * [ProcessDied]


def test_a_start_that_fails_says_why() -> None:
    made = Processes(1, refuse)
    try:
        with pytest.raises(UnreadableImage):
            made.do(begun)
    finally:
        made.close()


def test_nothing_is_left_behind_by_a_killed_program(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time\n"
        "from jernih.processes import Processes\n"
        "if __name__ == '__main__':\n"
        "    made = Processes(1, os.getpid)\n"
        "    print(made.do(os.getpid), flush=True)\n"
        "    time.sleep(60)\n"
    )
    program = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)  # noqa: S603
    if program.stdout is None:
        pytest.fail("no output")
    child = int(program.stdout.readline())
    program.kill()
    program.communicate()
    assert wait_until(lambda: not Path(f"/proc/{child}").exists(), 20)
