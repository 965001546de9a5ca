"""Smooth shapes and noise over a plane, of which the anatomy is built."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]
"""Maps over the pixels of an image; all are float32, for speed."""


# These three are called often. They work in place, since most of the time goes into fresh memory.
def rise(distance: Field, width: float) -> Field:
    """From 0 to 1 around a distance of 0, smoothly over six times the width."""
    t = distance * np.float32(1 / (6 * width))
    t += np.float32(0.5)
    np.clip(t, 0, 1, out=t)
    step: Field = t * np.float32(-2)
    step += np.float32(3)
    step *= t
    step *= t
    return step


def rounded(distance: Field, width: float) -> Field:
    """Thickness of a rounded edge: 0 outside, a quarter of a circle, 1 from ``width`` inwards."""
    inside = distance * np.float32(1 / width)
    np.clip(inside, 0, 1, out=inside)
    edge: Field = 2 - inside
    edge *= inside
    return np.sqrt(edge, out=edge)


def ellipsoid(
    x: Field, y: Field, centre: tuple[float, float], axes: tuple[float, float], tilt: float = 0.0
) -> Field:
    """Thickness of an ellipsoid, 1 in the middle."""
    cos, sin = np.cos(tilt), np.sin(tilt)
    thickness: Field = np.ones_like(x)
    for along_x, along_y, axis in ((cos, sin, axes[0]), (-sin, cos, axes[1])):
        offset = np.float32((along_x * centre[0] + along_y * centre[1]) / axis)
        u = x * np.float32(along_x / axis)
        u += y * np.float32(along_y / axis)
        u -= offset
        u *= u
        thickness -= u
    np.maximum(thickness, 0, out=thickness)
    return np.sqrt(thickness, out=thickness)


def texture(rng: np.random.Generator, x: Field, y: Field, scale: float) -> Field:
    """Smooth noise of standard deviation 1 with blobs of about ``scale`` mm, fixed in the patient.

    White noise on a grid of nodes, spread by a kernel that reaches four nodes along each axis. The
    tilt of the patient is left out, so that rows and columns can be treated one after the other.
    """
    gap = 1.5 * scale
    white = rng.standard_normal((int(500 / gap) + 5,) * 2, dtype=np.float32)
    middle = x.shape[0] // 2
    for line in (y[:, middle], x[middle]):
        place = np.clip((line + 250) / np.float32(gap), 1, len(white) - 4)
        node = place.astype(np.int64)
        weights = []
        for offset in range(-1, 3):
            distance = (place - node - offset) * np.float32(0.5)
            near = 1 - distance * distance
            weights.append(near * near * near)
        size = np.sqrt(sum(weight * weight for weight in weights))
        spread = np.zeros((len(line), white.shape[1]), dtype=np.float32)
        for offset, weight in enumerate(weights, start=-1):
            part = white[node + offset]
            part *= (weight / size)[:, None]
            spread += part
        white = spread.T  # the next axis comes to the front
    return white
