"""Several detectors as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from jernih.classifiers import Classifier
from jernih.detectors.base import DETECTORS, Comparison, Detector, Source
from jernih.purifiers import Purifier
from jernih.validate import InputError


@DETECTORS.register("combination")
class Combination(Detector):
    r"""A weighted sum of other detectors' scores, the weights a logistic regression's.

    .. math:: s(x) = b + \sum_j w_j\, \frac{s_j(x) - m_j}{d_j}

    with m and d the median and the spread (from the first quartile to the third) of each score on
    clean images. The weights are fitted to tell clean images from attacked ones (Lee et al.,
    arXiv:1807.03888, combine the scores of layers in this way), so of all detectors this one is the
    most likely to be fitted to an attack: judge it on others.

    Args:
        classifier: the defended classifier.
        purifier: what restores the images.
        detectors: the detectors: each a name, or a mapping of ``name`` and its options.

    Raises:
        InputError: for fewer than two detectors and for one of its own kind; when asked for scores
            before :meth:`fit`.
    """

    reference: ClassVar[str] = "arXiv:1807.03888"
    learns: ClassVar[bool] = True

    centre: Tensor
    spread: Tensor
    weights: Tensor
    offset: Tensor

    def __init__(
        self,
        classifier: Classifier,
        purifier: Purifier,
        detectors: Sequence[str | Mapping[str, Any]] = (
            "reconstruction-error",
            "jensen-shannon",
            "prediction-change",
        ),
    ) -> None:
        super().__init__(classifier, purifier)
        if isinstance(detectors, str) or len(detectors) < 2:
            raise InputError("detectors", "a list of at least two", repr(detectors))
        made = []
        for choice in detectors:
            options = {"name": choice} if isinstance(choice, str) else dict(choice)
            name = str(options.pop("name", None))
            if name == self.name:
                raise InputError("detectors", "detectors of other kinds", repr(name))
            made.append(DETECTORS.create(name, classifier=classifier, purifier=purifier, **options))
        self.parts = nn.ModuleList(made)
        for field in ("centre", "spread", "weights", "offset"):
            self.register_buffer(field, torch.empty(0))

    def fit(self, clean: Source, attacked: Source) -> None:
        """Fit the parts that learn, then the weights, on clean and on attacked images."""
        for part in self._detectors():
            if part.learns:
                part.fit(clean, attacked)
        harmless, harmful = self._table(clean), self._table(attacked)
        low, middle, high = harmless.quantile(
            torch.tensor([0.25, 0.5, 0.75], dtype=harmless.dtype), dim=0
        )
        spread = (high - low).clamp_min(1e-12)
        table = ((torch.cat([harmless, harmful]) - middle) / spread).numpy()
        truth = np.repeat([0, 1], [len(harmless), len(harmful)])
        found = LogisticRegression(class_weight="balanced", max_iter=1000).fit(table, truth)
        device = self.centre.device
        self.centre, self.spread = middle.float().to(device), spread.float().to(device)
        self.weights = torch.from_numpy(found.coef_[0]).float().to(device)
        self.offset = torch.from_numpy(found.intercept_).float().to(device)

    def score(self, images: Tensor, restored: Tensor) -> Tensor:
        """Return the weighted sum for each image (N,)."""
        if self.weights.numel() == 0:
            raise InputError("detector", "one that was fitted", "none yet")
        scores = torch.stack(self._scores(images, restored), 1)
        return ((scores - self.centre) / self.spread) @ self.weights + self.offset

    def _table(self, source: Source) -> Tensor:
        rows = []
        with torch.no_grad():
            for images, _ in source():
                restored = self.purifier(images)
                rows.append(torch.stack(self._scores(images, restored), 1).double().cpu())
        return torch.cat(rows)

    def _scores(self, images: Tensor, restored: Tensor) -> list[Tensor]:
        """The parts' scores; those that compare answers share them."""
        parts = self._detectors()
        answers: tuple[Tensor, ...] = ()
        if any(isinstance(part, Comparison) for part in parts):
            answers = (self.classifier(images), self.classifier(restored))
        return [
            part.compare(*answers) if isinstance(part, Comparison) else part.score(images, restored)
            for part in parts
        ]

    def _detectors(self) -> list[Detector]:
        return [part for part in self.parts if isinstance(part, Detector)]
