"""The assessment itself: measure every image, then say what it adds up to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset, default_collate

from jernih.adaptive.signs import in_training
from jernih.assess.measure import all_examples, measure_batch
from jernih.assess.observations import Array, Observations, load_part, save_part
from jernih.assess.plan import AssessmentPlan
from jernih.assess.result import Assessment
from jernih.assess.summarise import device_of, summarise
from jernih.defended import Defended
from jernih.randomness import seeded
from jernih.storage import fingerprint
from jernih.validate import InputError, check_images, check_labels
from jernih.world import in_shares

log = logging.getLogger(__name__)

PARTS_VERSION = 2
"""Raised whenever what a part holds changes, so that older parts are measured again."""


def assess(
    defended: Defended,
    dataset: Dataset[Any],
    paths: Sequence[str],
    plan: AssessmentPlan,
    *,
    parts: Path | None = None,
    key: str = "",
    progress: Callable[[int, int], None] | None = None,
    meta: dict[str, Any] | None = None,
) -> Assessment:
    """Attack a defended model and measure what the attack breaks and the purifier mends.

    Memory does not grow with the data set beyond a few numbers for each image. With ``parts`` an
    interrupted assessment goes on where it stopped and gives the same result as one that was not
    interrupted.

    Args:
        defended: classifier, purifier and, if wanted, detector, in evaluation mode; it stays as
            it is.
        dataset: gives (image, label, index); images float32 (C, H, W) in [0, 1], all of one size.
        paths: a name for each image.
        plan: the attack and the threats.
        parts: folder for the finished batches.
        key: fingerprint of the models and the data, needed with ``parts``: batches stored under
            another key are measured again.
        progress: called with images done and images in all after every batch.
        meta: plain data to keep with the result, such as the time of the run.

    Returns:
        the assessment with its observations.

    Raises:
        InputError: for an empty data set, names that do not match it, a model in training mode,
            and ``parts`` without ``key``.
    """
    if parts is not None and not key:
        raise InputError("key", "a fingerprint of the models and the data", "none")
    if training := in_training(defended):
        where = f"training mode in {len(training)} modules"
        raise InputError("defended", "evaluation mode (call .eval())", where)
    size = len(dataset)  # type: ignore[arg-type]
    if size == 0 or len(paths) != size:
        raise InputError("paths", f"a name for each of {max(size, 1)} images", len(paths))
    observations = _observe(defended, dataset, paths, plan, parts, key, progress)
    return summarise(observations, defended, plan, meta or {})


def _observe(
    defended: Defended,
    dataset: Dataset[Any],
    paths: Sequence[str],
    plan: AssessmentPlan,
    parts: Path | None,
    key: str,
    progress: Callable[[int, int], None] | None,
) -> Observations:
    """Measure all batches, taking those from ``parts`` that are already there."""
    frozen = defended.frozen()
    device = device_of(defended)
    described = {name: value for name, value in plan.describe().items() if name != "level"}

    def worker() -> Callable[[int], dict[str, Array]]:
        # Of each kind of example the first is wanted. A process that skips batches looks for it
        # longer than need be, which does no harm: the first of all is always among those found.
        wanted = all_examples(plan)

        def work(batch: int) -> dict[str, Array]:
            start = batch * plan.batch_size
            stop = min(start + plan.batch_size, len(paths))
            file = None if parts is None else Path(parts) / f"part-{batch:05d}.npz"
            mark = fingerprint([PARTS_VERSION, key, described, start, list(paths[start:stop])])
            values = None if file is None else load_part(file, mark)
            if values is None:
                images, labels, _ = default_collate([dataset[i] for i in range(start, stop)])
                images = check_images(images.to(device), "dataset images")
                count = len(defended.classifier.classes)
                labels = check_labels(labels, len(images), count).to(device)
                # A random purifier draws from torch's own numbers; a resumed run meets the same.
                with seeded(plan.seed, "batch", batch):
                    values = measure_batch(frozen, images, labels, plan, batch, start, wanted)
                if file is not None:
                    save_part(file, mark, values)
            else:
                log.debug("batch %d taken from %s", batch, file)
            wanted.difference_update(
                (int(k), int(e), int(c)) for k, e, c, _ in values["example_key"]
            )
            if progress is not None:
                progress(stop, len(paths))
            return values

        return work

    batches = range(-(-len(paths) // plan.batch_size))
    return Observations.join(paths, in_shares(batches, worker, kept=parts is not None))
