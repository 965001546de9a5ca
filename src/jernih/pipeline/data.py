"""Sample, Explore and Modify."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from jernih.data.defects import REASONS, Checks
from jernih.data.explore import Exploration, explore
from jernih.data.manifest import Manifest
from jernih.data.modify import Augment, Crops, ImageDataset, Prepare, augmentation_figure
from jernih.data.sample import SplitPlan, sample
from jernih.data.sources import SOURCES
from jernih.pipeline.stages import Stages, plain
from jernih.randomness import generator


class DataStages(Stages):
    """The stages from files to images that a model takes."""

    def sample(self) -> Manifest:
        """Sample: the manifest of all images with their splits."""
        return self._sample

    def explore(self) -> Exploration:
        """Explore: what the images are like, and the defects among them."""
        return self._explore

    def modify(self) -> dict[str, ImageDataset]:
        """Modify: the prepared images of each split, without the defects."""
        return self._modify

    @functools.cached_property
    def _sample(self) -> Manifest:
        settings = self.config.sample
        source = SOURCES.create(settings.source.name, **settings.source.options)
        workdir = self.folder.stage("sample") / "images"
        with self.world.leader_first():
            listing = [
                [
                    str(item.path),
                    item.label,
                    item.split,
                    item.patient,
                    stat.st_size,
                    stat.st_mtime_ns,
                ]
                for item in source(workdir)
                for stat in [item.path.stat()]
            ]
        key = self.folder.key(
            {"settings": plain(settings), "seed": self.config.seed, "files": listing}
        )
        with self._stage("sample", key) as folder:
            if folder is not None:
                split = settings.split
                plan = SplitPlan(
                    test=split.test,
                    val=split.val,
                    stratify=split.stratify,
                    seed=self.config.seed,
                    limit={str(name): n for name, n in split.limit.items()},
                )
                manifest = sample(source, plan, workdir, self.reporter.progress("sample"))
                manifest.save(folder)
        return Manifest.load(self.folder.path / "sample")

    @functools.cached_property
    def _explore(self) -> Exploration:
        manifest = self.sample()
        settings = self.config.explore
        key = self.folder.key(
            {
                "drop": settings.drop,
                "keep": settings.keep,
                "sample": self.folder.outputs("sample"),
            }
        )
        with self._stage("explore", key) as folder:
            if folder is not None:
                reasons = REASONS if settings.drop is None else settings.drop
                checks = Checks(drop=reasons, keep=settings.keep)
                explore(manifest, folder, checks=checks, progress=self.reporter.progress("explore"))
        return Exploration.load(self.folder.path / "explore")

    @functools.cached_property
    def _modify(self) -> dict[str, ImageDataset]:
        manifest = self.explore().clean(self.sample())
        settings = self.config.modify
        key = self.folder.key(
            {"settings": plain(settings), "explore": self.folder.outputs("explore")}
        )
        prepare = Prepare(settings.size, settings.fit)
        augment = Augment(
            settings.rotation,
            settings.flip,
            settings.zoom,
            settings.brightness,
            seed=self.config.seed,
        )
        crops = Crops(settings.crops, self.config.seed) if settings.crops else None
        datasets = {name: ImageDataset(manifest.split(name), prepare) for name in ("val", "test")}
        datasets["train"] = ImageDataset(manifest.split("train"), prepare, augment, crops)
        with self._stage("modify", key) as folder:
            if folder is not None:
                augmentation_figure(datasets["train"], folder / "augmented.png")
        return datasets

    def _key(self, *splits: str, **inputs: Any) -> str:
        """The fingerprint of a stage that works on the modified images of some splits."""
        records = [r for s in splits for r in self.modify()[s].manifest.records]
        return self.folder.key(
            {
                **inputs,
                "seed": self.config.seed,
                "modify": plain(self.config.modify),
                "images": [[r.sha256, r.label, r.split] for r in records],
                "classes": self.modify()["train"].manifest.classes,
            }
        )

    def _batches(self, split: str, label: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels of a split on the run's device, with progress."""
        dataset = self.modify()[split]
        progress = self.reporter.progress(label)
        done = 0
        loader = DataLoader(
            dataset, self.config.assess.batch_size, generator=generator(self.config.seed, label)
        )
        for images, labels, _ in loader:
            yield images.to(self.device), labels.to(self.device)
            done += len(images)
            progress(done, len(dataset))
