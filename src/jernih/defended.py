"""Purifier, classifier and detector as one model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor, nn

from jernih.classifiers import Classifier
from jernih.classifiers.prepare import channels_last
from jernih.data.modify import Prepare
from jernih.detectors import Comparison, Detector
from jernih.purifiers import Purifier
from jernih.types import Policy
from jernih.validate import InputError, check_choice, check_images

Action = Literal["as it came", "restored", "rejected"]


@dataclass(frozen=True)
class Inspection:
    """What a defended model makes of a batch of N images.

    Attributes:
        logits: the classifier's logits on the restored images (N, K).
        restored: the restored images (N, 3, H, W) in [0, 1].
        scores: suspicion (N,), or None without a detector.
        flagged: bool (N,), or None without a calibrated detector.
        actions: what was done with each image: it was classified as it came or restored, or it was
            rejected, so that its logits are not to be used.
    """

    logits: Tensor
    restored: Tensor
    scores: Tensor | None
    flagged: Tensor | None
    actions: tuple[Action, ...]


class Defended(nn.Module, ModelHubMixin):
    """A classifier behind an automatic purifier: images in [0, 1] → logits.

    The classifier is left as it is. Since the whole is a plain module, any attack that works on
    a classifier works through it (an adaptive attack).

    ``save_pretrained(folder)`` writes it to a folder, ``from_pretrained(folder)`` reads it, and
    with the name of a repository instead of a folder they, and ``push_to_hub``, go by the Hugging
    Face hub (:class:`huggingface_hub.ModelHubMixin`). ``from_pretrained`` takes ``trust_code``,
    as :func:`jernih.hub.read_defended` does.

    Args:
        classifier: the classifier to defend.
        purifier: what restores images before it.
        detector: what scores them, if wanted.
        policy: ``"restore"`` restores every image. ``"restore-flagged"`` leaves those that the
            detector does not flag as they came: harmless images keep every pixel, at the price that
            an attack has one more way past. ``"reject-flagged"`` restores all, and says of those
            flagged that they are rejected.
        prepare: how images of any size are brought to what the classifier takes; for those who
            have files (the server, a DICOM node). None: as they come.
        card: what else is known of it, as plain data: a title, the figures that it reached.

    Raises:
        InputError: for a detector of another purifier, and for a policy that goes by flags without
            a detector; when called, before that detector is calibrated.
    """

    def __init__(
        self,
        classifier: Classifier,
        purifier: Purifier,
        detector: Detector | None = None,
        policy: Policy = "restore",
        *,
        prepare: Prepare | None = None,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if detector is not None and detector.purifier is not purifier:
            raise InputError("detector", "one made for this very purifier", "another purifier's")
        check_choice("policy", policy, get_args(Policy))
        if policy != "restore" and detector is None:
            raise InputError("policy", "'restore' without a detector", repr(policy))
        self.classifier = classifier
        self.purifier = purifier
        self.detector = detector
        self.policy: Policy = policy
        self.prepare = prepare
        self.card = dict(card or {})

    def _save_pretrained(self, save_directory: Path) -> None:
        from jernih.hub import write_defended

        write_defended(self, save_directory)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        trust_code: bool = False,
        **said: Any,  # what the mixin has read of config.json, which we read as a whole
    ) -> Defended:
        from jernih.hub import read_defended

        folder = Path(model_id).expanduser()
        if not folder.is_dir():
            from huggingface_hub import snapshot_download

            found = snapshot_download(
                model_id,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
            folder = Path(found)
        return read_defended(folder, trust_code=trust_code)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, 3, H, W), restored as the policy says; returns logits (N, K)."""
        if self.policy == "restore-flagged":
            return self.look(images)[0]
        logits: Tensor = self.classifier(self.purifier(images))
        return logits

    @torch.no_grad()
    def inspect(self, images: Tensor) -> Inspection:
        """Restore, score and classify images (N, 3, H, W) in [0, 1], without gradients.

        Raises:
            InputError: for images of another form.
        """
        images = check_images(images)
        logits, restored, scores, flagged = self.look(images)
        actions: list[Action] = ["restored"] * len(images)
        if flagged is not None and self.policy == "restore-flagged":
            actions = ["restored" if flag else "as it came" for flag in flagged.tolist()]
        elif flagged is not None and self.policy == "reject-flagged":
            actions = ["rejected" if flag else "restored" for flag in flagged.tolist()]
        return Inspection(logits, restored, scores, flagged, tuple(actions))

    def look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Logits, restored images, scores and flags of :class:`Inspection`, by tensors alone.

        Nothing is checked and no value is looked at, so that it can be traced; :meth:`inspect` is
        what to call otherwise. A detector that compares answers shares them with the outcome.

        Raises:
            InputError: for a policy that goes by flags before the detector is calibrated.
        """
        restored = self.purifier(images)
        if self.detector is None:
            return self.classifier(restored), restored, None, None
        before = after = None
        if isinstance(self.detector, Comparison):
            before, after = self.classifier(images), self.classifier(restored)
            scores = self.detector.compare(before, after)
        else:
            scores = self.detector.score(images, restored)
        flagged = None
        if self.detector.threshold is not None or self.policy != "restore":
            flagged = self.detector.flag(scores)
        if self.policy != "restore-flagged" or flagged is None:
            logits = self.classifier(restored) if after is None else after
        elif before is None or after is None:
            logits = self.classifier(torch.where(flagged.view(-1, 1, 1, 1), restored, images))
        else:
            logits = torch.where(flagged.view(-1, 1), after, before)
        return logits, restored, scores, flagged

    def frozen(self) -> Self:
        """A copy with the classifier in its form for attacks and nothing that takes gradients."""
        classifier = self.classifier.frozen()
        purifier = copy.deepcopy(self.purifier).eval().requires_grad_(False)
        channels_last(purifier)
        detector = None
        if self.detector is not None:
            detector = self.detector.made_for(classifier, purifier)
        made = type(self)(
            classifier, purifier, detector, self.policy, prepare=self.prepare, card=self.card
        )
        return made.eval().requires_grad_(False)
