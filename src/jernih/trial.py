"""One image attacked and restored on the spot: what a person who tries the defence wants to see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jernih.answer import Answer, Answerer
from jernih.attacks import ATTACKS
from jernih.randomness import generator
from jernih.types import Knowledge, Threat
from jernih.validate import check_choice


@dataclass(frozen=True)
class Trial:
    """What became of one image.

    Attributes:
        attack: the attack as plain data; None where nothing was attacked.
        threat: what the attacker could do; None where nothing was attacked.
        told: the class that the attack was to move the model away from: the model's own answer on
            the clean image, since nobody knows the true one here.
        clean: the defended model's answer on the clean image.
        clean_alone: probabilities that the classifier alone gives the clean image, by class.
        attacked: the defended model's answer on the attacked image, which is its ``seen``.
        attacked_alone: probabilities that the classifier alone gives the attacked image.
        psnr_attacked: PSNR of the attacked image against the clean one, dB; None if equal.
        psnr_restored: PSNR of the attacked image restored against the clean one; None if equal.
    """

    attack: dict[str, Any] | None
    threat: Threat | None
    told: str
    clean: Answer
    clean_alone: dict[str, float]
    attacked: Answer
    attacked_alone: dict[str, float]
    psnr_attacked: float | None
    psnr_restored: float | None

    def to_dict(self) -> dict[str, Any]:
        """The trial as plain data, without the pictures."""
        threat = self.threat
        return {
            "attack": self.attack,
            "threat": None
            if threat is None
            else {"knowledge": threat.knowledge, "norm": threat.norm, "eps": threat.eps},
            "attacked_class": self.told,
            "clean": {"classifier": self.clean_alone, "defended": _plain(self.clean)},
            "attacked": {"classifier": self.attacked_alone, "defended": _plain(self.attacked)},
            "psnr_attacked_db": self.psnr_attacked,
            "psnr_restored_db": self.psnr_restored,
            "n": 1,
            "note": "one image says nothing of how well the defence holds: see the assessment",
        }


def attempt(
    answerer: Answerer,
    image: Tensor,
    attack: str | None = "fgsm",
    eps: float | str = 0.01,
    knowledge: Knowledge = "oblivious",
    *,
    options: dict[str, Any] | None = None,
    areas: bool = False,
    seed: int = 0,
) -> Trial:
    """Attack an image, restore it, and say what each model makes of it before and after.

    The attacked image is rounded to 8 bits a channel, as a file of it would be.

    Args:
        answerer: who is asked.
        image: the image (3, H, W) in [0, 1], of any size.
        attack: an attack's name; None to leave the image as it is.
        eps: its bound, on the scale of images in [0, 1].
        knowledge: ``"oblivious"`` attacks the classifier alone, ``"adaptive"`` the purifier and
            the classifier as one.
        options: further options of the attack.
        areas: also say where the class was found.
        seed: seed of attacks that use randomness.

    Raises:
        InputError: for an unknown attack, a bound that it does not take, and no image.

    Example:
        >>> from jernih import Defended, load_classifier
        >>> from jernih.purifiers import restore_purifier
        >>> classifier = load_classifier("test_efficientnet", ["cat", "dog"])
        >>> defended = Defended(classifier, restore_purifier("jernih-s-imagenet"))
        >>> trial = attempt(Answerer(defended, "cpu"), torch.rand(3, 40, 60), eps="4/255")
        >>> str(trial.threat)
        'oblivious, linf, eps 0.0156863'
    """
    check_choice("knowledge", knowledge, ("oblivious", "adaptive"))
    seen = answerer.prepared(image)
    batch = seen[None].to(answerer.device)
    alone = answerer.ready.classifier
    with torch.no_grad():
        before = alone(batch)
        target = answerer.ready if knowledge == "adaptive" else alone
        label = (answerer.ready(batch) if knowledge == "adaptive" else before).argmax(1)
    attacked, described, threat = seen, None, None
    if attack is not None:
        made = ATTACKS.create(attack, eps=eps, **(options or {}))
        found = made(target, batch, label, generator=generator(seed, "trial"))
        attacked = (found.images[0].cpu() * 255).round() / 255
        described = made.describe()
        threat = Threat(found.norm, found.eps, knowledge)
    with torch.no_grad():
        after = alone(attacked[None].to(answerer.device))
    # Both are of one size and need no further preparation.
    answers = answerer.answers(torch.stack([seen, attacked]), areas=areas)
    return Trial(
        attack=described,
        threat=threat,
        told=answerer.classes[int(label)],
        clean=answers[0],
        clean_alone=_shares(answerer, before),
        attacked=answers[1],
        attacked_alone=_shares(answerer, after),
        psnr_attacked=_psnr(seen, attacked),
        psnr_restored=_psnr(seen, answers[1].restored),
    )


def _shares(answerer: Answerer, logits: Tensor) -> dict[str, float]:
    return dict(zip(answerer.classes, logits[0].float().softmax(0).tolist(), strict=True))


def _psnr(clean: Tensor, other: Tensor) -> float | None:
    error = float((clean.double() - other.double()).square().mean())
    return None if error == 0 else float(-10 * torch.tensor(error, dtype=torch.float64).log10())


def _plain(answer: Answer) -> dict[str, Any]:
    return {
        "label": answer.label,
        "probabilities": answer.probabilities,
        "suspicion": answer.suspicion,
        "threshold": answer.threshold,
        "flagged": answer.flagged,
        "action": answer.action,
    }
