"""Image files through a purifier: of any size, without a classifier."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from jernih.data.images import UnreadableImage, read_image, write_png
from jernih.data.unlabelled import unlabelled_files
from jernih.device import pick_device
from jernih.purifiers import Purifier
from jernih.validate import InputError
from jernih.world import current_world

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PurifiedFiles:
    """The outcome of :func:`purify_files`.

    Attributes:
        written: the files written.
        kept: files that were there already and stayed as they were.
        unreadable: reasons, by source file, for images that were left out.
    """

    written: tuple[Path, ...]
    kept: tuple[Path, ...]
    unreadable: dict[str, str]


def purify_files(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    purifier: Purifier,
    *,
    bits: int = 8,
    overwrite: bool = False,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> PurifiedFiles:
    """Restore an image, or all images of a folder, and write them as PNG.

    Images keep their size and name; folders keep their subfolders. Files that are there already
    stay, so that the same call goes on after an interruption. Of several processes that have joined
    (:func:`jernih.world.join_world`) each restores its share; all return what became of the whole.

    Args:
        source: an image file, or a folder, whose subfolders count.
        out: where to write: a folder, or for a single image also a path that ends in ``.png``.
        purifier: what restores them, in evaluation mode.
        bits: 8 or 16 bits a channel.
        overwrite: write files again that are there already.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        progress: called with images done and images in all after every image.

    Raises:
        InputError: for a source that does not exist or has no image, a target that is the source,
            a purifier in training mode, or when no image at all can be read.
    """
    if bits not in (8, 16):
        raise InputError("bits", "8 or 16", bits)
    if purifier.training:
        raise InputError("purifier", "evaluation mode (call .eval())", "training mode")
    world = current_world()
    every = _targets(Path(source).expanduser(), Path(out).expanduser())
    targets = dict(list(every.items())[world.rank :: world.size])
    device = pick_device(device)
    purifier = purifier.to(device)
    written: list[Path] = []
    kept: list[Path] = []
    unreadable: dict[str, str] = {}
    for done, (file, target) in enumerate(targets.items(), 1):
        if target.exists() and not overwrite:
            kept.append(target)
        else:
            try:
                image = read_image(file)
                restored = restore_any_size(purifier, image.to(device))
                written.append(write_png(target, restored, bits=16 if bits == 16 else 8))
            except UnreadableImage as error:
                log.warning("%s is left out: %s", file, error.reason)
                unreadable[str(file)] = error.reason
        if progress is not None:
            progress(done, len(targets))
    made = PurifiedFiles(tuple(written), tuple(kept), unreadable)
    whole = _joined(list(every.values()), world.gathered(made))
    if not whole.written and not whole.kept:
        count = f"{len(whole.unreadable)} unreadable"
        raise InputError("source", "at least one readable image", count)
    return whole


def _joined(targets: list[Path], shares: list[PurifiedFiles]) -> PurifiedFiles:
    """What several processes did, in the order of the files."""
    if len(shares) == 1:
        return shares[0]
    place = {target: number for number, target in enumerate(targets)}
    return PurifiedFiles(
        tuple(sorted((file for share in shares for file in share.written), key=place.__getitem__)),
        tuple(sorted((file for share in shares for file in share.kept), key=place.__getitem__)),
        {file: reason for share in shares for file, reason in share.unreadable.items()},
    )


@torch.no_grad()
def restore_any_size(purifier: Purifier, image: Tensor) -> Tensor:
    """Restore an image (3, H, W) of any size, continued as in a mirror to sides that are taken."""
    height, width = image.shape[1:]
    below, right = -height % purifier.multiple, -width % purifier.multiple
    # Reflection needs more pixels than it adds; tiny images repeat their edge instead.
    mode = "reflect" if below < height and right < width else "replicate"
    padded = functional.pad(image[None], (0, right, 0, below), mode=mode)
    restored: Tensor = purifier(padded)[0, :, :height, :width]
    return restored


def _targets(source: Path, out: Path) -> dict[Path, Path]:
    """Where each image goes; no two alike, in upper or lower case."""
    if not source.exists():
        raise InputError("source", "an existing file or folder", source)
    if source.is_file():
        single = out if out.suffix.lower() == ".png" and not out.is_dir() else None
        targets = {source: single or out / f"{source.stem}.png"}
    else:
        targets, taken = {}, set()
        for file in unlabelled_files(source, "source"):
            place = out / file.relative_to(source)
            target, number = place.with_name(f"{file.stem}.png"), 1
            while str(target).casefold() in taken:
                number += 1
                target = place.with_name(f"{file.stem}-{number}.png")
            taken.add(str(target).casefold())
            targets[file] = target
    originals = {file.resolve() for file in targets}
    for target in targets.values():
        if target.resolve() in originals:
            raise InputError("out", "another place than the images'", str(target))
    return targets
