"""Several processes at one run: which of them this one is, and where they wait for each other."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import distributed

from jernih.memory import give_back_freed_memory
from jernih.validate import InputError

T = TypeVar("T")
R = TypeVar("R")

TIDIED = 4
"""Items after which freed memory is given back."""
PATIENCE = datetime.timedelta(days=7)
"""How long processes wait for the one that works: as long as a stage may take."""


@dataclass(frozen=True)
class World:
    """The processes that work at one run together.

    Attributes:
        rank: the number of this process.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    def meet(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def told(self, value: T) -> T:
        """What the leader passes here, for all processes; all of them have to call it."""
        if self.size == 1:
            return value
        held: list[Any] = [value]
        distributed.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        found: T = held[0]
        return found

    def gathered(self, value: T) -> list[T]:
        """What every process passes here, in the order of their numbers; all have to call it."""
        if self.size == 1:
            return [value]
        held: list[Any] = [None] * self.size
        distributed.all_gather_object(held, value)
        return held

    @contextlib.contextmanager
    def leader_first(self) -> Iterator[None]:
        """The leader goes through the block first, then all others: for files made where absent."""
        if not self.leads:
            self.meet()
        yield
        if self.leads:
            self.meet()


def current_world() -> World:
    """The processes that have joined; one where none have."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return World()
    return World(distributed.get_rank(), distributed.get_world_size())


def join_world() -> World:
    """Join the processes that ``torchrun`` has started, if it has.

    ``torchrun`` tells each process its number by the environment; without it there is one process,
    and nothing is done. On machines with CUDA devices each process takes the one of its local
    number.

    Raises:
        InputError: when the processes of this machine outnumber its CUDA devices, where it has any.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1 and not distributed.is_initialized():
        cuda = torch.cuda.is_available()
        if cuda:
            local, here = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
            if local >= here:
                raise InputError(
                    "processes", f"at most {here} on a machine, one a device", local + 1
                )
            torch.cuda.set_device(local)
        distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    world = current_world()
    if not world.leads:
        logging.getLogger("jernih").setLevel(logging.ERROR)  # the leader says it
    return world


def leave_world() -> None:
    """Leave the processes joined, if any: at the end of a command."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def in_shares(
    items: Sequence[T], worker: Callable[[], Callable[[T], R]], *, kept: bool
) -> Iterator[R]:
    """Results of some work on all items, in order, with each process doing its share.

    The work has to keep its results where all processes find them, and to take from there what is
    done already: each process first works on every so manyth item, waits for the others, and then
    goes through all of them. The results are those of one process, whatever their number.

    Args:
        items: what to work on; the same in all processes.
        worker: makes the work, a function of an item, anew for each round.
        kept: whether results are kept so.

    Raises:
        InputError: for several processes and results that are not kept.
    """
    world = current_world()
    if world.size > 1:
        if not kept:
            raise InputError("parts", "a folder that all processes share", "none")
        work = worker()
        for number, item in enumerate(items[world.rank :: world.size], 1):
            work(item)
            _tidy(number)
        world.meet()
    work = worker()
    for number, item in enumerate(items, 1):
        yield work(item)
        _tidy(number)


def _tidy(number: int) -> None:
    if number % TIDIED == 0:
        give_back_freed_memory()
