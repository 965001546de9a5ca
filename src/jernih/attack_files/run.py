"""Attack images, write them, read them again, and ask the model about what was read."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jernih import __version__
from jernih.attack_files.folder import AttackFolder, Row
from jernih.attack_files.formats import FORMATS, Format, read, suffix, write
from jernih.attack_files.images import Images
from jernih.attack_files.summary import results
from jernih.attacks import Attack, distance
from jernih.classifiers import Classifier
from jernih.data.images import UnreadableImage, read_image
from jernih.data.modify import Prepare
from jernih.data.sources import Item
from jernih.randomness import generator
from jernih.storage import fingerprint, sha256_file, to_json
from jernih.validate import InputError, check_choice, check_count, nearest
from jernih.world import current_world

log = logging.getLogger(__name__)

_LIBRARIES = ("torchvision", "timm", "numpy", "pillow")


@dataclass(frozen=True)
class AttackedFiles:
    """The outcome of :func:`attack_files`.

    Attributes:
        folder: where the files are.
        rows: one for each image, as in ``manifest.csv``.
        unreadable: reasons, by file, for images that were left out.
        results: counts, rates and what rounding did, as in ``attack.json``.
    """

    folder: Path
    rows: tuple[Row, ...]
    unreadable: dict[str, str]
    results: dict[str, Any]


def attack_files(
    classifier: Classifier,
    images: Images,
    attack: Attack,
    folder: AttackFolder,
    *,
    prepare: Prepare,
    target: str | None = None,
    file_format: Format = "png",
    batch_size: int = 32,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> AttackedFiles:
    """Attack images as one who sees only the classifier (oblivious), and write them to a folder.

    The attack works on a prepared copy of the classifier. All predictions are the classifier's own:
    for the clean image, for the attacked one in float32, and for what is read from the file again,
    since rounding to grey levels can undo a small perturbation. What is finished stays; after an
    interruption the same call goes on and ends with the same files. Of several processes
    (:func:`jernih.world.join_world`) each attacks its share of the batches; the files are the same.

    Args:
        classifier: in evaluation mode; it stays as it is.
        images: what to attack; those that cannot be read are left out.
        attack: with its bound; targeted exactly when ``target`` is given.
        folder: receives ``images/LABEL/…``, ``manifest.csv`` and ``attack.json``.
        prepare: brings images to the classifier's size. Written images are of that size: they are
            to be fed to the model as they are.
        target: the class to reach; images of that class are left out.
        file_format: ``"png"`` (8 bits), ``"png16"`` or ``"npy"`` (float32, exact).
        batch_size: images attacked together.
        seed: seed of the attack's randomness.
        device: ``"cpu"`` or ``"cuda"``.
        progress: called with images done and images in all after every batch.

    Raises:
        InputError: for labels and targets that the classifier does not know, a classifier in
            training mode, an attack without a targeted form, or a folder begun with other settings.
    """
    check_choice("format", file_format, FORMATS)
    check_count("batch_size", batch_size)
    check_count("seed", seed, 0)
    if any(module.training for module in classifier.modules()):
        raise InputError("classifier", "evaluation mode (call .eval())", "training mode")
    if attack.targeted != (target is not None):
        asked = "a target" if attack.targeted else "none"
        raise InputError("target", f"{asked} for this attack", repr(target))
    items = _attackable(classifier, images, target)
    constant = {
        "eps": attack.eps,
        "norm": attack.norm,
        "attack": attack.name,
        "options": json.dumps(_options(attack), sort_keys=True),
        "seed": seed,
    }
    settings = {
        "attack": attack.name,
        "norm": attack.norm,
        "eps": attack.eps,
        "needs": attack.needs,
        "reference": attack.reference,
        "options": _options(attack),
        "target": target,
        "model": _model_card(classifier),
        "data": {**images.source, "images": len(items), "files": _digest(items)},
        "prepare": {"size": prepare.size, "fit": prepare.fit},
        "format": file_format,
        "batch_size": batch_size,
        "seed": seed,
        "jernih": __version__,
    }
    worker = _Worker(classifier, attack, folder, prepare, target, file_format, device)
    world = current_world()
    with folder.begun(settings):
        paths = _paths(items, suffix(file_format))
        rows, unreadable = folder.finished()
        log.info("%d images to attack, %d of them finished before", len(items), len(rows))
        share: tuple[list[Row], dict[str, str]] = ([], {})
        for start in range(0, len(items), batch_size)[world.rank :: world.size]:
            stop = min(start + batch_size, len(items))
            batch = dict(zip(paths[start:stop], items[start:stop], strict=True))
            if not all(p in rows or str(i.path) in unreadable for p, i in batch.items()):
                source = generator(seed, "attack files", start)
                made, failed = worker.batch(batch, source, rows)
                folder.note(made, failed)
                share[0].extend(made)
                share[1].update(failed)
            if progress is not None:
                progress(stop, len(items))
        for made, failed in world.gathered(share):
            rows |= {row.path: row for row in made}
            unreadable |= failed
        sources = [str(item.path) for item in items]
        unreadable = {file: unreadable[file] for file in sources if file in unreadable}
        ordered = tuple(rows[path] for path in paths if path in rows)
        if not ordered:
            raise InputError("data", "at least one readable image", f"{len(unreadable)} unreadable")
        told = results(ordered, unreadable, attack, len(classifier.classes), file_format)
        versions = {
            "python": platform.python_version(),
            "jernih": __version__,
            "torch": str(torch.__version__),
            **{name: version(name) for name in _LIBRARIES},
        }
        if world.leads:
            folder.complete(ordered, constant, {**told, "versions": versions, "device": device})
    return AttackedFiles(folder.path, ordered, unreadable, told)


class _Worker:
    """What is the same for all batches."""

    def __init__(
        self,
        classifier: Classifier,
        attack: Attack,
        folder: AttackFolder,
        prepare: Prepare,
        target: str | None,
        file_format: Format,
        device: str,
    ) -> None:
        with torch.no_grad():  # TorchScript copies its parameters by an operation
            self.asked = copy.deepcopy(classifier).to(device)
        self.attacked = classifier.frozen().to(device)
        self.classes = classifier.classes
        self.attack, self.folder, self.prepare = attack, folder, prepare
        self.target, self.file_format, self.device = target, file_format, device

    def batch(
        self, batch: dict[str, Item], source: torch.Generator, finished: dict[str, Row]
    ) -> tuple[list[Row], dict[str, str]]:
        """Attack and write a batch; returns rows of what was not yet finished, and failures."""
        clean, kept, failed = [], {}, {}
        for path, item in batch.items():
            try:
                clean.append(self.prepare(read_image(item.path)))
                kept[path] = item
            except UnreadableImage as error:
                log.warning("%s is left out: %s", item.path, error.reason)
                failed[str(item.path)] = error.reason
        if not kept:
            return [], failed
        images = torch.stack(clean).to(self.device)
        wanted = [self.target or item.label for item in kept.values()]
        goals = torch.tensor([self.classes.index(label) for label in wanted], device=self.device)
        made = self._attack(images, goals, source)
        for path, image in zip(kept, made, strict=True):
            if path not in finished:
                write(self.folder.path / path, image, self.file_format)
        again = torch.stack([read(self.folder.path / p, self.file_format) for p in kept])
        again = again.to(self.device)
        told = [self._predict(batch) for batch in (images, made, again)]
        sizes = [
            distance(images, made, self.attack.norm),
            distance(images, again, self.attack.norm),
            distance(images, again, "linf"),
        ]
        rows = []
        for place, (path, item) in enumerate(kept.items()):
            if path in finished:
                continue
            before, after, written = (self.classes[int(answer[place])] for answer in told)
            rows.append(
                Row(
                    path=path,
                    source=str(item.path),
                    label=item.label,
                    target=self.target or "",
                    before=before,
                    after=after,
                    written=written,
                    success=self._success(item.label, after),
                    success_written=self._success(item.label, written),
                    distance=float(sizes[0][place]),
                    distance_written=float(sizes[1][place]),
                    linf_written=float(sizes[2][place]),
                    sha256=sha256_file(self.folder.path / path),
                )
            )
        return rows, failed

    def _attack(self, images: Tensor, goals: Tensor, source: torch.Generator) -> Tensor:
        try:
            return self.attack(self.attacked, images, goals, generator=source).images
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            raise InputError(
                "attack",
                "one that needs no gradients, since the model gives none",
                repr(self.attack.name),
                "see knowledge in: jernih list attacks",
            ) from None

    def _predict(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            answers: Tensor = self.asked(images).argmax(1).cpu()
        return answers

    def _success(self, label: str, answer: str) -> bool:
        return answer != label if self.target is None else answer == self.target


def _attackable(classifier: Classifier, images: Images, target: str | None) -> list[Item]:
    """The items that are not of the wanted class already; labels and target have to be classes."""
    known = classifier.classes
    if target is not None:
        check_choice("target", target, known)
    unknown = sorted({item.label for item in images.items} - set(known))
    if unknown:
        like = nearest(unknown[0], known)
        shown = ", ".join(known[:3]) + (", …" if len(known) > 3 else "")
        raise InputError(
            "labels",
            f"classes of the model ({shown})",
            repr(unknown[0]),
            f"nearest: {like!r}" if like else "name the model's classes in order",
        )
    items = [item for item in images.items if item.label != target]
    if not items:
        raise InputError("target", "images of other classes to attack", "none")
    return items


def _options(attack: Attack) -> dict[str, Any]:
    """The options of an attack beside its bound, norm and target, which are told apart."""
    apart = ("name", "eps", "norm", "targeted")
    described = {key: value for key, value in attack.describe().items() if key not in apart}
    plain: dict[str, Any] = json.loads(to_json(described))
    return plain


def _model_card(classifier: Classifier) -> dict[str, Any]:
    digest = hashlib.sha256()
    for name, value in classifier.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    name = str(classifier.description.get("name", type(classifier.network).__name__))
    program = Path(name).expanduser()
    return {
        "name": name,
        "classes": fingerprint(classifier.classes),
        "class_count": len(classifier.classes),
        "mean": classifier.mean.flatten().tolist(),
        "std": classifier.std.flatten().tolist(),
        "weights": digest.hexdigest(),
        "file": sha256_file(program) if program.is_file() else None,
    }


def _digest(items: Sequence[Item]) -> str:
    return fingerprint([[str(i.path), i.label, sha256_file(i.path)] for i in items])


def _paths(items: Sequence[Item], ending: str) -> list[str]:
    """A path for each item, below a folder for its label; no two alike, in upper or lower case."""
    taken: set[str] = set()
    paths = []
    for item in items:
        label = item.label.replace("/", "_").replace("\\", "_").replace("\0", "_")
        label = f"_{label}" if label.startswith(".") else label
        stem, number = item.path.stem.lstrip(".") or "image", 1
        path = f"images/{label}/{stem}{ending}"
        while path.casefold() in taken:
            number += 1
            path = f"images/{label}/{stem}-{number}{ending}"
        taken.add(path.casefold())
        paths.append(path)
    return paths
