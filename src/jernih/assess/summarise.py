"""From the values of all images to conditions, tests, detection and warnings."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Sequence
from importlib import metadata
from types import EllipsisType
from typing import Any

import numpy as np
import torch

from jernih.assess.checks import find_warnings
from jernih.assess.metrics import FPRS, least_flagged, ranking, score
from jernih.assess.observations import Array, Observations
from jernih.assess.plan import AssessmentPlan
from jernih.assess.probe import read_probes
from jernih.assess.result import (
    Assessment,
    Condition,
    Detection,
    DetectionResult,
    FoundAt,
    Histogram,
    PairedTest,
    Quality,
    Rate,
    Which,
)
from jernih.assess.statistics import Bootstrap, compare, rate, spread
from jernih.defended import Defended
from jernih.storage import to_json
from jernih.types import Threat

Place = tuple[int, int] | EllipsisType
"""Where in the arrays a threat's values are: indices of knowledge and bound, or everywhere."""


def summarise(
    seen: Observations, defended: Defended, plan: AssessmentPlan, meta: dict[str, Any]
) -> Assessment:
    """Turn the values of the images into an assessment.

    Args:
        seen: the values.
        defended: the model that they come from, for its descriptions.
        plan: the plan that they were measured under.
        meta: plain data to keep with the result.
    """
    bootstrap = Bootstrap(len(seen), plan.seed, plan.level)
    classes = defended.classifier.classes
    labels = seen["label"]
    threats = [
        (k, e, Threat(plan.attack.norm, eps, knowledge))
        for k, knowledge in enumerate(plan.knowledge)
        for e, eps in enumerate(plan.bounds)
    ]
    build = _ConditionBuilder(seen, classes, bootstrap, str(plan.attack.name))
    conditions = [build.unattacked("clean"), build.unattacked("clean through purifier")]
    for k, e, threat in threats:
        conditions += [build.attacked(k, e, threat), build.restored(k, e, threat)]
    counts = np.bincount(labels, minlength=len(classes))
    common = int(counts.argmax())
    result = Assessment(
        n=len(seen),
        classes=classes,
        counts={classes[i]: int(counts[i]) for i in np.flatnonzero(counts)},
        majority_class=classes[common],
        majority=rate(labels == common, plan.level),
        plan=_plain(plan.describe()),
        models=describe_models(defended),
        environment=_environment(defended),
        meta=_plain(meta),
        softmax_suspected=bool(seen["clean_softmax"].all()),
        conditions=tuple(conditions),
        tests=_tests(seen, threats, bootstrap),
        detection=_detection(seen, threats, defended, bootstrap),
        probes=read_probes(seen["probe"]),
        observations=seen,
    )
    return dataclasses.replace(result, warnings=find_warnings(result))


class _ConditionBuilder:
    """Makes a condition from the values of its images."""

    def __init__(
        self, seen: Observations, classes: Sequence[str], bootstrap: Bootstrap, attack: str
    ) -> None:
        self.seen = seen
        self.classes = classes
        self.bootstrap = bootstrap
        self.attack = attack

    def unattacked(self, which: Which) -> Condition:
        kind = "clean" if which == "clean" else "purified"
        quality = None if which == "clean" else self._quality(kind, ...)
        return self._condition(which, kind, ..., None, quality=quality)

    def attacked(self, k: int, e: int, threat: Threat) -> Condition:
        seen, at = self.seen, (k, e)
        rounded = seen["attacked_pred_8bit"][at] == seen["label"]
        counts = tuple(int(count) for count in seen["histogram"][at])
        return dataclasses.replace(
            self._condition(
                "attacked", "attacked", at, threat, quality=self._quality("attacked", at)
            ),
            accuracy_8bit=rate(rounded, self.bootstrap.level),
            success=self._success("clean_pred", "attacked_pred", at),
            linf=spread(seen["linf"][at]),
            l2=spread(seen["l2"][at]),
            perturbation=Histogram(-threat.eps, threat.eps, counts),
        )

    def restored(self, k: int, e: int, threat: Threat) -> Condition:
        at = (k, e)
        return dataclasses.replace(
            self._condition(
                "restored", "restored", at, threat, quality=self._quality("restored", at)
            ),
            success=self._success("purified_pred", "restored_pred", at),
        )

    def _success(self, before: str, after: str, at: Place) -> Rate | None:
        right = self.seen[before] == self.seen["label"]
        wrong_after = self.seen[after][at] != self.seen["label"]
        return rate(wrong_after[right], self.bootstrap.level) if right.any() else None

    def _quality(self, kind: str, at: Place) -> Quality:
        return Quality(
            *(spread(self.seen[f"{kind}_{name}"][at]) for name in ("mse", "psnr", "ssim"))
        )

    def _condition(
        self, which: Which, kind: str, at: Place, threat: Threat | None, quality: Quality | None
    ) -> Condition:
        seen = self.seen
        scores = score(
            seen["label"],
            seen[f"{kind}_pred"][at],
            seen[f"{kind}_prob1"][at],
            self.classes,
            self.bootstrap,
        )
        return Condition(
            which=which,
            threat=threat,
            attack="none" if threat is None else self.attack,
            n=len(seen),
            confidence=spread(seen[f"{kind}_conf"][at]),
            quality=quality,
            accuracy_8bit=None,
            success=None,
            linf=None,
            l2=None,
            perturbation=None,
            **{f.name: getattr(scores, f.name) for f in dataclasses.fields(scores)},
        )


def _tests(
    seen: Observations, threats: Sequence[tuple[int, int, Threat]], bootstrap: Bootstrap
) -> tuple[PairedTest, ...]:
    right: dict[str, Array] = {
        kind: seen[f"{kind}_pred"] == seen["label"]
        for kind in ("clean", "purified", "attacked", "restored")
    }
    tests = [
        compare(
            "clean", "clean through purifier", None, right["clean"], right["purified"], bootstrap
        )
    ]
    for k, e, threat in threats:
        attacked, restored = right["attacked"][k, e], right["restored"][k, e]
        tests += [
            compare("clean", "attacked", threat, right["clean"], attacked, bootstrap),
            compare("attacked", "restored", threat, attacked, restored, bootstrap),
            compare("clean", "restored", threat, right["clean"], restored, bootstrap),
        ]
    return tuple(tests)


def _detection(
    seen: Observations,
    threats: Sequence[tuple[int, int, Threat]],
    defended: Defended,
    bootstrap: Bootstrap,
) -> Detection | None:
    if defended.detector is None:
        return None
    calibration = defended.detector.calibration
    clean = seen["clean_score"]

    def flagged(scores: Array) -> Rate | None:
        if calibration is None:
            return None
        return rate(scores > calibration.threshold, bootstrap.level)

    results = []
    for k, e, threat in threats:
        # An image that fooled before it was attacked is often left as it is: nothing to find.
        changed = np.flatnonzero(seen["linf"][k, e] > 0)
        if not len(changed):
            continue
        scores = seen["attacked_score"][k, e][changed]
        image = np.concatenate([np.arange(len(seen)), changed])
        is_attacked = np.arange(len(image)) >= len(seen)
        auroc, roc = ranking(np.concatenate([clean, scores]), is_attacked, image, bootstrap)
        at = tuple(
            FoundAt(fpr, rate(scores > least_flagged(clean, fpr), bootstrap.level)) for fpr in FPRS
        )
        results.append(DetectionResult(threat, len(changed), flagged(scores), auroc, roc, at))
    return Detection(
        detector=str(defended.detector.name),
        threshold=None if calibration is None else calibration.threshold,
        nominal_fpr=None if calibration is None else calibration.fpr,
        calibration_n=None if calibration is None else calibration.n,
        fpr=flagged(clean),
        results=tuple(results),
    )


def describe_models(defended: Defended) -> dict[str, Any]:
    """Classifier, purifier, detector (None without one) and an unusual policy as plain data."""
    detector = defended.detector
    told = {
        "classifier": defended.classifier.description,
        "purifier": defended.purifier.describe(),
        "detector": None if detector is None else detector.describe(),
    }
    if defended.policy != "restore":
        told["policy"] = {"name": defended.policy}
    return _plain(told)


def _environment(defended: Defended) -> dict[str, Any]:
    names = ("jernih", "torch", "torchvision", "timm", "torchmetrics", "numpy", "scipy")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed as a package"
    return {
        "versions": versions,
        "device": str(device_of(defended)),
        "platform": platform.platform(),
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """What these values are after a round trip through JSON."""
    plain: dict[str, Any] = json.loads(to_json(values))
    return plain


def device_of(defended: Defended) -> torch.device:
    """The device that a model is on; a model without tensors counts as on the CPU."""
    tensors = [*defended.parameters(), *defended.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")
