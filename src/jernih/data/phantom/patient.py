"""The invented people of the synthetic radiographs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from jernih.validate import check_choice

Label = Literal["NORMAL", "PNEUMONIA"]

LABELS: tuple[Label, ...] = ("NORMAL", "PNEUMONIA")
"""Both classes, in the order of their indices."""


@dataclass(frozen=True)
class Lesion:
    """A region where fluid takes the place of air in the lung.

    Attributes:
        kind: "consolidation": one cloud with a ragged border; "interstitial": a mottled field.
        x: position of the centre in mm, positive towards the patient's left.
        y: the same downwards.
        width: half the extent across, in mm.
        height: half the extent down, in mm.
        share: largest share of the air that is replaced.
        edge: softness of the border; 0.1 is sharp, 0.5 fades out.
        seed: seed of its texture.
    """

    kind: Literal["consolidation", "interstitial"]
    x: float
    y: float
    width: float
    height: float
    share: float
    edge: float
    seed: int


@dataclass(frozen=True)
class Patient:
    """The anatomy of one invented person; lengths in mm, the origin in mid-chest.

    Attributes:
        label: "NORMAL" or "PNEUMONIA".
        size: scale of the whole body.
        depth: thickness of the chest from front to back.
        torso: half the width of the trunk.
        cage: half the width of the rib cage.
        apex: height of the tips of the lungs (negative: above the origin).
        base: height of the right dome of the diaphragm; a deep breath makes it larger.
        dome: how far the diaphragm falls from the dome to the side.
        left_drop: how much lower the left dome lies than the right.
        air: how much of the chest's depth the lungs fill at most.
        heart: scale of the heart.
        heart_tilt: inclination of the heart's long axis in radians.
        aorta: radius of the aortic knob.
        spacing: distance from rib to rib.
        ribs: number of pairs of ribs.
        slope: how far each rib falls from back to front.
        rib_width: half the height of a rib.
        bone: scale of the thickness of all bones.
        curve: sideways bend of the spine.
        vertebra: distance from vertebra to vertebra.
        clavicle: how far the collar bones rise outwards.
        vessels: scale of the vessels' thickness.
        seed: seed of the vessel tree and of the fine texture.
        lesions: what pneumonia has changed; empty in NORMAL.
    """

    label: Label
    size: float
    depth: float
    torso: float
    cage: float
    apex: float
    base: float
    dome: float
    left_drop: float
    air: float
    heart: float
    heart_tilt: float
    aorta: float
    spacing: float
    ribs: int
    slope: float
    rib_width: float
    bone: float
    curve: float
    vertebra: float
    clavicle: float
    vessels: float
    seed: int
    lesions: tuple[Lesion, ...] = field(default=())

    @classmethod
    def draw(cls, rng: np.random.Generator, label: str) -> Patient:
        """Invent a patient.

        Args:
            rng: source of all that varies.
            label: "NORMAL" or "PNEUMONIA".

        Raises:
            InputError: for another label.
        """
        known: dict[str, Label] = {name: name for name in LABELS}
        check_choice("label", label, LABELS)
        cage = rng.normal(136, 7)
        person: dict[str, Any] = {
            "size": rng.uniform(0.9, 1.06),
            "depth": rng.uniform(165, 225),
            "torso": cage + rng.uniform(20, 42),
            "cage": cage,
            "apex": rng.normal(-132, 6),
            "base": rng.normal(92, 13),
            "dome": rng.uniform(32, 60),
            "left_drop": rng.normal(10, 5),
            "air": rng.uniform(0.66, 0.8),
            "heart": rng.normal(1.0, 0.09),
            "heart_tilt": rng.uniform(0.4, 0.8),
            "aorta": rng.uniform(13, 20),
            "spacing": rng.uniform(22.5, 28),
            "ribs": int(rng.integers(9, 12)),
            "slope": rng.uniform(60, 125),
            "rib_width": rng.uniform(5.2, 7.2),
            "bone": rng.uniform(0.75, 1.25),
            "curve": rng.normal(0, 3),
            "vertebra": rng.uniform(21, 27),
            "clavicle": rng.uniform(8, 38),
            "vessels": rng.uniform(0.75, 1.3),
            "seed": int(rng.integers(2**31)),
        }
        lesions = _lesions(rng, person) if label == "PNEUMONIA" else ()
        return cls(label=known[label], lesions=lesions, **person)


def _lesions(rng: np.random.Generator, person: dict[str, Any]) -> tuple[Lesion, ...]:
    """One to three consolidations, or a field over one or both lungs; faint ones among them."""
    severity = rng.beta(1.9, 1.2)
    found = []
    if rng.random() < 0.6:
        for _ in range(int(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))):
            height = rng.uniform(-0.55, 0.8)
            found.append(
                Lesion(
                    kind="consolidation",
                    x=float(rng.choice([-1, 1]) * rng.uniform(0.45, 0.72) * person["cage"]),
                    y=float(height * person["base"]),
                    width=rng.uniform(28, 40) + 16 * severity,
                    height=rng.uniform(28, 44) + 24 * severity,
                    share=0.28 + 0.6 * severity,
                    edge=rng.uniform(0.12, 0.4),
                    seed=int(rng.integers(2**31)),
                )
            )
        return tuple(found)
    sides = [-1, 1] if rng.random() < 0.8 else [int(rng.choice([-1, 1]))]
    for side in sides:
        found.append(
            Lesion(
                kind="interstitial",
                x=side * rng.uniform(55, 75),
                y=rng.uniform(-10, 50),
                width=rng.uniform(70, 110),
                height=rng.uniform(80, 130),
                share=(0.28 + 0.6 * severity) * rng.uniform(0.85, 1.15),
                edge=rng.uniform(0.4, 0.7),
                seed=int(rng.integers(2**31)),
            )
        )
    return tuple(found)
