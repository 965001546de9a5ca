"""Work done in other processes, which may die without harm to this one."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import pickle
import queue
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from jernih.validate import check_number

log = logging.getLogger(__name__)

_SERVER_IMPORTS = (
    "jernih.answer", "jernih.data.dicom", "jernih.data.modify", "jernih.data.untrusted",
    "jernih.pipeline", "jernih.serve.workers",
)  # fmt: skip
"""What the one server of all processes imports, so that a new process is there at once. What
cannot be imported it leaves out."""
START_S = 120.0
"""Longest that a process may take to begin, in seconds."""


class ProcessDied(Exception):  # noqa: N818 - named for what it is about
    """The process that did some work died over it."""


class Processes:
    """A few processes that do one piece of work each at a time, and are replaced when they die.

    The pools of Python's own library end as a whole when one of their processes dies, and cannot
    end a piece of work that takes too long. Here both concern that piece of work alone.

    Processes are begun when they are first needed, by a server of their own where the system has
    that, so that nothing of this process is copied into them. As with any Python program of several
    processes, a script has to start its work under ``if __name__ == "__main__":``.

    Args:
        count: how many.
        start: run in each process at its start.
        given: what ``start`` is given.
        needed: modules that the work needs, imported before ``start``.
        tasks: pieces of work after which a process is replaced by a new one; 0 for never.
        tries: how often a piece of work is begun whose process is killed from outside (by SIGKILL:
            by the system when memory is short, or by a person). A process that dies of its work,
            by a fault, is not tried again.
    """

    def __init__(
        self,
        count: int,
        start: Callable[..., None],
        given: Sequence[Any] = (),
        needed: Sequence[str] = (),
        *,
        tasks: int = 0,
        tries: int = 2,
    ) -> None:
        self.count = int(check_number("count", count, 1, 1024))
        self.tasks = tasks
        self.tries = tries
        ways = multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context(
            "forkserver" if "forkserver" in ways else "spawn"
        )
        if "forkserver" in ways:
            self._context.set_forkserver_preload(list(_SERVER_IMPORTS))
        self._begin = (start, tuple(given), tuple(needed))
        self._closed = False
        self._all: set[_Process] = set()
        self._free: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(self.count):
            self._free.put(None)

    def do(self, function: Callable[..., Any], *given: Any, seconds: float | None = None) -> Any:
        """What ``function`` returns in one of the processes; it has to be importable there.

        Waits for a process that is free.

        Args:
            function: the work.
            given: its arguments, which have to pickle, as its result has to.
            seconds: longest that it may take, counted from its beginning.

        Raises:
            TimeoutError: when it takes longer; its process is ended.
            ProcessDied: when its process dies over it.
            Exception: whatever the work raises.
        """
        work = pickle.dumps((function, given))
        for attempt in range(1, self.tries + 1):
            process = self._free.get()
            try:
                if process is None or not process.idle():
                    self._end(process)
                    process = None
                    process = self._new()
                return process.do(work, seconds)
            except TimeoutError:
                self._end(process)
                process = None
                raise
            except EOFError:
                code = self._end(process)
                process = None
                log.warning("a process ended with %s over its work", code)
                if code != -signal.SIGKILL or attempt == self.tries or self._closed:
                    raise ProcessDied from None
            finally:
                worn = self._closed or (self.tasks and process and process.done >= self.tasks)
                if process is not None and worn:
                    self._end(process)
                    process = None
                self._free.put(process)
        raise ProcessDied

    def close(self) -> None:
        """End the processes; what they work on is given up."""
        self._closed = True
        # Those at work are only killed here: whoever waits for the work ends them, and no line is
        # closed or read by two threads.
        for process in tuple(self._all):
            process.kill()
        free: list[_Process | None] = []
        with suppress(queue.Empty):
            while True:
                free.append(self._free.get_nowait())
        for idle in free:
            self._end(idle)
            self._free.put(None)

    def _new(self) -> _Process:
        if self._closed:
            raise ProcessDied
        process = _Process(self._context, self._begin)
        self._all.add(process)
        try:
            if self._closed:  # since it was asked for
                raise ProcessDied
            process.begin()
        except TimeoutError:
            self._end(process)
            raise ProcessDied from None
        except BaseException:
            self._end(process)
            raise
        return process

    def _end(self, process: _Process | None) -> int | None:
        if process is None:
            return None
        self._all.discard(process)
        return process.end()


class _Process:
    """One process and the line to it."""

    def __init__(self, context: Any, begin: tuple[Any, ...]) -> None:
        self.done = 0
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, begin), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self) -> None:
        """Wait until it is there."""
        self._answer(START_S)

    def idle(self) -> bool:
        """Whether it lives and waits for work."""
        return bool(self._process.is_alive()) and not self._line.closed

    def do(self, work: bytes, seconds: float | None) -> Any:
        try:
            self._line.send_bytes(work)
        except OSError:
            raise EOFError from None
        self.done += 1
        return self._answer(seconds)

    def kill(self) -> None:
        """Kill it; its line stays with whoever waits at it."""
        with suppress(OSError, ValueError):
            self._process.kill()

    def end(self) -> int | None:
        """End it at once; its exit status."""
        self._process.join(0.2 if not self._process.is_alive() else 0)
        self.kill()
        self._process.join(5)
        code: int | None = self._process.exitcode
        self._line.close()
        return code

    def _answer(self, seconds: float | None) -> Any:
        """What it says, also when it dies after saying it."""
        if not wait([self._line, self._process.sentinel], seconds):
            raise TimeoutError
        try:
            if not self._line.poll(0):
                raise EOFError
            right, value = pickle.loads(self._line.recv_bytes())  # noqa: S301 - our own process's
        except OSError:
            raise EOFError from None
        if right:
            return value
        raise value


def _serve(line: Connection, begin: tuple[Any, ...]) -> None:
    """What a process does: work until nobody is at the other end."""
    # Whoever started the whole ends it: an interruption at the terminal goes to all processes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    start, given, needed = begin
    for module in needed:
        importlib.import_module(module)
    _say(line, _tried(start, given))
    with suppress(EOFError, OSError):
        while True:
            work = line.recv_bytes()
            _say(line, _tried(_call, (work,)))


def _tried(function: Callable[..., Any], given: Sequence[Any]) -> tuple[bool, Any]:
    try:
        return True, function(*given)
    except Exception as error:
        # Without its traceback, whose frames hold what the work held.
        return False, error.with_traceback(None)


def _call(work: bytes) -> Any:
    function, given = pickle.loads(work)  # noqa: S301 - from the process that began this one
    return function(*given)


def _say(line: Connection, told: tuple[bool, Any]) -> None:
    try:
        packed = pickle.dumps(told)
    except MemoryError as error:
        packed = pickle.dumps((False, error.with_traceback(None)))
    except Exception as error:
        packed = pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
    line.send_bytes(packed)
