"""What all stages share: the run folder, who hears of progress, and when a stage is skipped."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from jernih.config import RunConfig, Section, Unit
from jernih.device import pick_device
from jernih.randomness import seeded
from jernih.run_folder import RunFolder
from jernih.storage import sha256_file, write_text
from jernih.validate import InputError
from jernih.world import join_world

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the number of images done and the number in all."""


class Reporter:
    """Hears of the run's progress; this one writes to the log. The command line draws bars."""

    show_training_progress = False

    def stage(self, name: str, state: str) -> None:
        """A stage is ``"running"``, ``"complete"``, or was ``"complete before"``."""
        log.info("%s: %s", name, state)

    def progress(self, label: str) -> Progress:
        """Return a callback for the images done so far of a piece of work called ``label``."""
        return lambda done, total: log.debug("%s: %d of %d", label, done, total)


class Stages:
    """A config, its run folder, and what every stage does before and after its work.

    Args:
        config: all settings.
        out: the run folder; by default the config's.
        reporter: what hears of progress.

    Raises:
        InputError: for units that do not exist, a folder that cannot be written, or a device that
            is not there.
    """

    def __init__(
        self,
        config: RunConfig,
        out: str | Path | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        config.check_units()
        self.world = join_world()
        self.config = config
        self.folder = RunFolder(config.out if out is None else out, guarded=self.world.leads)
        self.reporter = (reporter if self.world.leads else None) or Reporter()
        self.device = pick_device(config.device)

    @contextlib.contextmanager
    def _stage(self, name: str, key: str, *, together: bool = False) -> Iterator[Path | None]:
        """Yield the folder of a stage that has to be done, or None when it is complete.

        Of several processes the leader alone does it, while the others wait, unless they do it
        ``together``.
        """
        world = self.world
        if world.told(world.leads and self.folder.is_complete(name, key)):
            self.reporter.stage(name, "complete before")
            yield None
            return
        self.reporter.stage(name, "running")
        if world.leads:
            self.folder.begin(name, key)
        world.meet()
        if world.leads or together:
            # A random purifier draws from torch's own numbers: the same ones in the next run.
            with seeded(self.config.seed, "stage", name):
                yield self.folder.stage(name)
        else:
            yield None
        world.meet()
        if world.leads:
            self.folder.complete(name, key)
        world.meet()
        self.reporter.stage(name, "complete")

    def _config_text(self) -> str:
        return yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False)

    def _write_config(self) -> None:
        """Put the whole config beside the results: with it the folder can be used by itself."""
        if self.world.leads:
            write_text(self.folder.path / "config.yaml", self._config_text())


def plain(part: Section | Unit | None) -> Any:
    """A part of the config as plain data."""
    return None if part is None else part.model_dump(mode="json")


def digest(file: str | None) -> str | None:
    """The hash of a weights file, so that another file under the same name is noticed."""
    if file is None:
        return None
    path = Path(file).expanduser()
    if not path.is_file():
        raise InputError("weights", "an existing .safetensors file", path)
    return sha256_file(path)
