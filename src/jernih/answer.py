"""What a defended model says of an image of any size: the one way that servers and nodes ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jernih.assess.saliency import important_areas
from jernih.defended import Action, Defended, Inspection
from jernih.device import pick_device
from jernih.validate import InputError, check_images


@dataclass(frozen=True)
class Answer:
    """What a defended model says of one image.

    Attributes:
        label: the name of the class found.
        index: its number, in the order of the logits.
        probabilities: of every class, by name, in the order of the logits.
        suspicion: the detector's score, higher is more suspicious; None without a detector.
        threshold: the score above which an image is flagged; None where there is none.
        flagged: whether the detector takes the image for attacked; None without a threshold.
        action: whether the image was classified as it came or restored, or was rejected: then the
            label is not to be used.
        seen: the image as prepared, before restoration, float32 (3, H, W) in [0, 1].
        restored: the same restored.
        areas: where in the image classified the class was found (Grad-CAM), float32 (H, W) in
            [0, 1]; None where not asked for.
    """

    label: str
    index: int
    probabilities: dict[str, float]
    suspicion: float | None
    threshold: float | None
    flagged: bool | None
    action: Action
    seen: Tensor
    restored: Tensor
    areas: Tensor | None = None


class Answerer:
    """Asks a defended model about images of any size.

    The model's own copy is made ready for fast passes once; the model given stays as it is. Calls
    from several threads do not disturb each other.

    Args:
        defended: the model.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Example:
        >>> from jernih import Defended, load_classifier
        >>> from jernih.purifiers import restore_purifier
        >>> classifier = load_classifier("test_efficientnet", ["cat", "dog"])
        >>> answerer = Answerer(Defended(classifier, restore_purifier("jernih-s-imagenet")), "cpu")
        >>> answer = answerer([torch.rand(3, 40, 60)])[0]
        >>> sorted(answer.probabilities)
        ['cat', 'dog']
        >>> answer.restored.shape
        torch.Size([3, 40, 60])
    """

    def __init__(self, defended: Defended, device: str = "auto") -> None:
        self.device = pick_device(device)
        self.defended = defended
        self.ready = defended.frozen().to(self.device)
        """The copy that is asked; gradients pass through it, so that it can be attacked too."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the logits."""
        return self.defended.classifier.classes

    def prepared(self, image: Tensor) -> Tensor:
        """An image (3, H, W) in [0, 1] of any size, as the model takes it."""
        if not isinstance(image, Tensor) or image.ndim != 3:
            shape = tuple(getattr(image, "shape", ()))
            raise InputError("image", "an image (3, H, W)", shape or type(image).__name__)
        image = check_images(image.unsqueeze(0))[0]
        return image if self.defended.prepare is None else self.defended.prepare(image)

    def inspect(self, images: Tensor) -> Inspection:
        """What the model makes of prepared images (N, 3, H, W), on this object's device."""
        return self.ready.inspect(images.to(self.device))

    def __call__(self, images: Sequence[Tensor], *, areas: bool = False) -> list[Answer]:
        """Answer for each image (3, H, W) in [0, 1], of any sizes, in order.

        Args:
            images: the images; those of one prepared size pass the model together.
            areas: also say where in the image the class was found.

        Raises:
            InputError: for images of another form, and for areas of a network without feature
                maps.
        """
        return self.of_prepared([self.prepared(image) for image in images], areas=areas)

    def of_prepared(self, prepared: Sequence[Tensor], *, areas: bool = False) -> list[Answer]:
        """As a call, for images that are prepared already (:meth:`prepared`)."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, image in enumerate(prepared):
            groups.setdefault(tuple(image.shape), []).append(place)
        answers: dict[int, Answer] = {}
        for places in groups.values():
            batch = torch.stack([prepared[place] for place in places])
            answers.update(zip(places, self.answers(batch, areas=areas), strict=True))
        return [answers[place] for place in range(len(prepared))]

    def answers(self, batch: Tensor, *, areas: bool = False) -> list[Answer]:
        """Answer for prepared images (N, 3, H, W) in [0, 1], which pass the model together."""
        found = self.inspect(batch)
        logits, restored = found.logits.float().cpu(), found.restored.cpu()
        scores = None if found.scores is None else found.scores.cpu().tolist()
        flags = None if found.flagged is None else found.flagged.cpu().tolist()
        detector = self.defended.detector
        spots: Tensor | None = None
        if areas:
            as_came = torch.tensor([action == "as it came" for action in found.actions])
            classified = torch.where(as_came.view(-1, 1, 1, 1), batch, restored)
            spots = important_areas(self.defended.classifier, classified, logits.argmax(1))
        return [
            Answer(
                label=self.classes[int(row.argmax())],
                index=int(row.argmax()),
                probabilities=dict(zip(self.classes, row.softmax(0).tolist(), strict=True)),
                suspicion=None if scores is None else scores[place],
                threshold=None if detector is None else detector.threshold,
                flagged=None if flags is None else flags[place],
                action=found.actions[place],
                seen=batch[place],
                restored=restored[place],
                areas=None if spots is None else spots[place].cpu(),
            )
            for place, row in enumerate(logits)
        ]
