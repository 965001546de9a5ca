"""Image files from strangers, read in processes of their own with bounds of time and memory.

A file of a few kilobytes can keep a decoder busy for minutes or ask it for gigabytes, in ways that
its header does not tell. Here that costs a process that is replaced, and not the service.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jernih.data.images import UnreadableImage, describe_image, read_image
from jernih.processes import ProcessDied, Processes
from jernih.validate import check_number

_NEEDED = ("jernih.data.untrusted", "jernih.data.dicom", "jernih.data.modify")
"""What a process imports before its memory is bounded."""
_TASKS = 1000
"""Files after which a process is replaced by a new one, so that nothing builds up in it."""


class TooManyPixels(UnreadableImage):
    """An image whose header says that it is larger than what is taken."""


class TooCostly(UnreadableImage):
    """A file that takes more time or memory to read than it is given."""


class UntrustedImages:
    """Reads image files in processes that may neither take long nor grow large.

    The processes (:class:`jernih.processes.Processes`) are begun at the first file and replaced
    when one is ended. The bound of memory holds where there is ``RLIMIT_AS``: on Linux.

    Args:
        max_pixels: largest image, in pixels; what is larger by its header is not unpacked.
        seconds: longest that one file may take.
        memory: most bytes that a process may take beyond what it has at its start.
        processes: files that are read at once.

    Example:
        >>> images = UntrustedImages(processes=1)  # doctest: +SKIP
        >>> images.read("radiograph.dcm").shape  # doctest: +SKIP
        torch.Size([3, 1024, 1024])
    """

    def __init__(
        self,
        max_pixels: int = 25_000_000,
        seconds: float = 5.0,
        memory: int = 2**30,
        processes: int = 2,
    ) -> None:
        self.max_pixels = int(check_number("max_pixels", max_pixels, 1, 2**40))
        self.seconds = check_number("seconds", seconds, 1e-3, 3600)
        self.memory = int(check_number("memory", memory, 2**20, 2**50))
        count = int(check_number("processes", processes, 1, 1024))
        self._processes = Processes(count, _bound, (self.memory,), _NEEDED, tasks=_TASKS)

    def start(self) -> None:
        """Begin the processes now, so that the first file need not wait for them."""
        self._processes.do(_nothing)

    def close(self) -> None:
        """End the processes; what they read is given up."""
        self._processes.close()

    def read(
        self, path: str | os.PathLike[str], prepare: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Read a file as float32 (3, H, W) in [0, 1], as :func:`jernih.data.read_image` does.

        Args:
            path: the file.
            prepare: what is done to the image before it comes back, such as
                :class:`jernih.data.modify.Prepare`; it has to pickle.

        Raises:
            UnreadableImage: for what is no image or damaged; :class:`TooManyPixels` for one that
                is too large, :class:`TooCostly` for one that takes too long or too much memory.
            InputError: for an image that cannot be prepared.
        """
        try:
            given = (os.fspath(path), self.max_pixels, prepare)
            image = self._processes.do(_read, *given, seconds=self.seconds)
        except TimeoutError:
            reason = f"it takes longer than {self.seconds:g} s to read"
            raise TooCostly(path, reason) from None
        except (MemoryError, ProcessDied):  # C code that gets no memory ends its process
            reason = f"it takes more than {self.memory // 2**20} MiB of memory to read"
            raise TooCostly(path, reason) from None
        except RecursionError:
            raise TooCostly(path, "it is nested too deeply") from None
        return torch.from_numpy(image)


def _bound(memory: int) -> None:
    """Put the bounds of this process in place: nothing is read before."""
    torch.set_num_threads(1)
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _read(
    path: str, max_pixels: int, prepare: Callable[[Tensor], Tensor] | None
) -> NDArray[np.float32]:
    facts = describe_image(path)
    if facts.width * facts.height > max_pixels:
        size = f"{facts.width} × {facts.height}"
        raise TooManyPixels(path, f"{size} pixels, more than {max_pixels:,}")
    try:
        image = read_image(path)
        ready: NDArray[np.float32] = (image if prepare is None else prepare(image)).numpy()
    except RuntimeError as error:
        if "allocate memory" in str(error):  # torch has no class of its own for it on CPUs
            raise MemoryError from None
        raise
    return ready


def _nothing() -> None:
    """What a process is asked that has only to be there."""
