"""Work on an archive shard by shard, spread over processes and machines by Ray Data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import torch
from torch import Tensor

from jernih.assess.plan import SurveyPlan
from jernih.assess.survey import measure_survey, name_cells, sum_up
from jernih.assess.survey_result import Survey
from jernih.bulk.archives import Entry, Writer, encoded, read_shard
from jernih.bulk.archives import put as put_file
from jernih.bulk.shards import Shard, check_apart, find_shards
from jernih.data.images import UnreadableImage
from jernih.defended import Defended
from jernih.hub import read_defended
from jernih.purifiers import restore_purifier
from jernih.purify_files import restore_any_size
from jernih.storage import fingerprint, to_json
from jernih.validate import InputError

log = logging.getLogger(__name__)

RECORDS = "_jernih"
"""The folder of what is known of each shard done, beside the results."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BulkResult:
    """What became of an archive.

    Attributes:
        shards: number of shards.
        kept: how many of them had been done before.
        images: number of images done.
        unreadable: reasons by shard and image, for those left out.
    """

    shards: int
    kept: int
    images: int
    unreadable: dict[str, str]


def purify_archive(
    source: str,
    out: str,
    weights: str | None = None,
    *,
    workers: int = 1,
    gpus: float = 0,
    progress: Progress | None = None,
) -> BulkResult:
    """Restore all images of an archive into one like it, with the images as PNG.

    Shards are done independently, each as a whole: the outcome does not depend on the number of
    workers, and after an interruption the same call goes on with the shards that are lacking or
    have changed since.

    Args:
        source: tar shards, Parquet files or a folder of images, local or remote
            (:func:`jernih.bulk.find_shards`).
        out: the folder of results, local or remote.
        weights: the purifier's weights: a file that all workers see, or the name of weights that
            come with the package; by default those that ``jernih purify`` takes.
        workers: how many shards are worked on at once.
        gpus: GPUs (or a share of one) for each worker.
        progress: called with shards done and shards in all.

    Raises:
        InputError: for a source without images, results of other weights in ``out``, an ``out``
            within the source, a damaged shard, and where Ray is not installed.
        OSError: where a shard cannot be read or written, such as on a full disk.
    """
    purifier = restore_purifier(weights or "jernih-s-imagenet")
    digest = fingerprint([purifier.describe(), _state_digest(purifier)])
    settings = {"work": "purify", "purifier": digest}
    options = {"weights": weights or "jernih-s-imagenet", "device": "cuda" if gpus else "cpu"}
    return _done(_Purify, options, source, out, settings, workers, gpus, progress)


def survey_archive(
    source: str,
    out: str,
    model: str,
    plan: SurveyPlan,
    *,
    workers: int = 1,
    gpus: float = 0,
    trust_code: bool = False,
    progress: Progress | None = None,
) -> tuple[Survey, BulkResult]:
    """Measure a defended model on all labelled images of an archive, attacked and restored.

    As :func:`purify_archive` does it; what was found for each image is kept in ``out``. Labels are
    class names, or numbers in the order of the model's classes. Images without one are left out.

    Args:
        source: as there.
        out: the folder of results.
        model: the folder of a packaged model, seen by all workers.
        plan: the attack, its bounds, who attacks, and the batch size.
        workers: how many shards are worked on at once.
        gpus: GPUs (or a share of one) for each worker.
        trust_code: as :func:`jernih.hub.read_defended` has it.
        progress: called with shards done and shards in all.

    Raises:
        InputError: as there, and for an archive without labelled images.
    """
    defended = read_defended(model, trust_code=trust_code)
    if plan.limit is not None:
        raise InputError("plan.limit", "none: an archive is measured as a whole", plan.limit)
    settings = {
        "work": "survey",
        "model": _state_digest(defended),
        "plan": plan.describe(),
    }
    options = {
        "model": model,
        "plan": plan,
        "trust_code": trust_code,
        "device": "cuda" if gpus else "cpu",
    }
    done = _done(_Survey, options, source, out, settings, workers, gpus, progress)
    names = ["label", *name_cells(plan.assessment, ["main"])]
    parts = [_read_values(out, shard.name, names) for shard in find_shards(source)]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in names}
    if not len(joined["label"]):
        raise InputError("source", "labelled images", "none")
    count = len(joined["label"])
    told = sum_up(joined, defended.classifier, {"main": defended.purifier}, plan, count)
    return told, done


def _done(
    worker: type[Any],
    options: dict[str, Any],
    source: str,
    out: str,
    settings: dict[str, Any],
    workers: int,
    gpus: float,
    progress: Progress | None,
) -> BulkResult:
    """Do the shards that are lacking, and say what became of all."""
    if workers < 1:
        raise InputError("workers", "at least 1", workers)
    check_apart(source, out)
    shards = find_shards(source)
    mark = fingerprint(settings)
    known = {shard.name: _record(out, shard.name) for shard in shards}
    for name, record in known.items():
        if record is not None and record.get("settings") != mark:
            raise InputError("out", "an empty folder, or results of the same settings", name)
    lacking = [
        shard
        for shard in shards
        if (record := known[shard.name]) is None or record.get("version") != shard.version
    ]
    versions = {shard.name: shard.version for shard in shards}
    kept = len(shards) - len(lacking)
    if progress is not None:
        progress(kept, len(shards))
    for number, row in enumerate(_rows(worker, {**options, "out": out}, lacking, workers, gpus), 1):
        if row["failed"]:
            raise OSError(f"shard {row['name']}: {row['failed']}")
        if row["error"]:
            raise InputError(f"shard {row['name']}", "one that can be read", row["error"])
        record = {
            "settings": mark,
            "version": versions[row["name"]],
            "images": int(row["images"]),
            "unreadable": json.loads(row["unreadable"]),
        }
        put_file(_record_path(out, row["name"]), to_json(record).encode())
        known[row["name"]] = record
        if progress is not None:
            progress(kept + number, len(shards))
    whole = [(name, record) for name, record in known.items() if record is not None]
    return BulkResult(
        shards=len(shards),
        kept=kept,
        images=sum(int(record["images"]) for _, record in whole),
        unreadable={
            f"{name}: {image}": reason
            for name, record in whole
            for image, reason in record["unreadable"].items()
        },
    )


def _rows(
    worker: type[Any], options: dict[str, Any], shards: list[Shard], workers: int, gpus: float
) -> Iterator[Mapping[str, Any]]:
    """What Ray's workers say of each shard, as they finish."""
    if not shards:
        return
    try:
        import ray
        import ray.data
    except ImportError:
        raise InputError("ray", "the package", "none", "pip install 'jernih[ray]'") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    items = [{"shard": json.dumps(dataclasses.asdict(shard))} for shard in shards]
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map(
        worker,
        fn_constructor_kwargs=options,
        num_gpus=gpus or None,
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(shards))),
    )
    yield from dataset.iter_rows()


class _Worker:
    """Does one shard after another in a process of Ray's."""

    def __init__(self, out: str, device: str) -> None:
        self.out = out
        self.device = device

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        held = json.loads(str(row["shard"]))
        lists = {name: tuple(held[name]) for name in ("paths", "twins")}
        shard = Shard(**{**held, **lists})
        unreadable: dict[str, str] = {}
        images, error, failed = 0, "", ""
        try:
            images = self.work(shard, unreadable)
        except InputError as problem:  # Ray would wrap it
            error = str(problem)
        except OSError as problem:  # a full disk, a store that does not answer
            failed = str(problem)
        return {
            "name": shard.name,
            "images": images,
            "unreadable": json.dumps(unreadable),
            "error": error,
            "failed": failed,
        }

    def work(self, shard: Shard, unreadable: dict[str, str]) -> int:
        """Do a shard; the number of images done."""
        raise NotImplementedError

    def images(self, shard: Shard, unreadable: dict[str, str]) -> Iterator[tuple[Entry, Tensor]]:
        """The images of a shard that can be read."""
        for entry in read_shard(shard):
            try:
                image = entry.image()
            except UnreadableImage as problem:
                unreadable[entry.name] = problem.reason
                continue
            yield entry, image


class _Purify(_Worker):
    def __init__(self, out: str, device: str, weights: str) -> None:
        super().__init__(out, device)
        self.purifier = restore_purifier(weights).to(device)

    def work(self, shard: Shard, unreadable: dict[str, str]) -> int:
        writer = Writer(shard, self.out)
        count = 0
        for entry, image in self.images(shard, unreadable):
            writer.add(entry, encoded(restore_any_size(self.purifier, image.to(self.device))))
            count += 1
        writer.close()
        return count


class _Survey(_Worker):
    def __init__(
        self, out: str, device: str, model: str, plan: SurveyPlan, trust_code: bool
    ) -> None:
        super().__init__(out, device)
        defended = read_defended(model, trust_code=trust_code).to(device)
        self.classes = defended.classifier.classes
        self.prepare = defended.prepare
        bare = Defended(defended.classifier, defended.purifier).eval()
        self.models = {"main": bare.frozen()}
        self.plan = plan
        self.names = ["label", *name_cells(plan.assessment, ["main"])]

    def work(self, shard: Shard, unreadable: dict[str, str]) -> int:
        found: list[dict[str, Any]] = []
        held: list[tuple[Tensor, int]] = []
        start = 0

        def measure() -> None:
            nonlocal held, start
            if held:
                images = torch.stack([image for image, _ in held]).to(self.device)
                labels = torch.tensor([label for _, label in held], device=self.device)
                # A shard's name, not its place, goes into the seeds: others beside it change
                # nothing.
                place = int(fingerprint([shard.name, start])[:12], 16)
                found.append(measure_survey(self.models, images, labels, self.plan, place))
                start += len(held)
                held = []

        for entry, image in self.images(shard, unreadable):
            label = self._label(entry)
            if label is None:
                unreadable[entry.name] = "no label of a class that the model knows"
                continue
            seen = image if self.prepare is None else self.prepare(image)
            if held and held[0][0].shape != seen.shape:
                measure()
            held.append((seen, label))
            if len(held) == self.plan.assessment.batch_size:
                measure()
        measure()
        joined = {
            name: np.concatenate([part[name] for part in found]) if found else np.empty(0, np.int64)
            for name in self.names
        }
        _write_values(self.out, shard.name, joined)
        return len(joined["label"])

    def _label(self, entry: Entry) -> int | None:
        if isinstance(entry.label, int):
            return entry.label if 0 <= entry.label < len(self.classes) else None
        return self.classes.index(entry.label) if entry.label in self.classes else None


def _state_digest(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _record_path(out: str, name: str) -> str:
    return f"{out.rstrip('/')}/{RECORDS}/{name}.json"


def _record(out: str, name: str) -> dict[str, Any] | None:
    system, place = fsspec.core.url_to_fs(_record_path(out, name))
    if not system.exists(place):
        return None
    try:
        record = json.loads(system.cat_file(place))
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _values_path(out: str, name: str) -> str:
    return f"{out.rstrip('/')}/{RECORDS}/{name}.parquet"


def _write_values(out: str, name: str, values: Mapping[str, Any]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    buffer = pa.BufferOutputStream()
    parquet.write_table(pa.table({key: np.asarray(v) for key, v in values.items()}), buffer)
    put_file(_values_path(out, name), buffer.getvalue().to_pybytes())


def _read_values(out: str, name: str, names: list[str]) -> dict[str, Any]:
    from pyarrow import parquet

    with fsspec.open(_values_path(out, name), "rb") as stream:
        table = parquet.read_table(stream)
    return {key: table[key].to_numpy() for key in names}
