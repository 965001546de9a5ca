"""How thick each tissue is behind each pixel, and how much of the beam it takes.

The shapes are smooth functions of the position in millimetres: a trunk of elliptic section, lungs
as the part of the rib cage above the diaphragm, ribs as tilted rings seen from the front.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from jernih.data.phantom.patient import Lesion, Patient
from jernih.data.phantom.shapes import Field, ellipsoid, rise, rounded, texture

SOFT, LUNG, BONE = 0.0217, 0.0053, 0.0604
"""Linear attenuation at 60 keV in 1/mm: the mass coefficients of soft tissue, lung and cortical
bone (ICRU-44) tabulated by Hubbell and Seltzer (NISTIR 5632, doi:10.18434/T4D01F), times densities
of 1.06, 0.26 (an inflated lung) and 1.92 g/cm³."""


def attenuation(patient: Patient, x: Field, y: Field, turn: float, pixel: float) -> Field:
    """The sum over tissues of attenuation times thickness.

    Args:
        patient: the anatomy.
        x: position of each pixel in mm towards the patient's left, float32 (H, W).
        y: the same downwards.
        turn: how far a turned patient's spine shows beside the midline, in mm.
        pixel: width of a pixel in mm.

    Returns:
        the exponent of Beer and Lambert's law, dimensionless, float32 (H, W).
    """
    midline = x - np.float32(turn) * rise(y + 60, 80)
    cage = _cage(patient, y)
    air = _lungs(patient, midline, y, cage)
    filled = air > 1
    solid = _heart(patient, midline, y) + _vessels(patient, x, y, pixel)
    np.clip(air - solid, 0.08 * air, None, out=air)
    rng = np.random.default_rng(patient.seed)
    air *= 1 - 0.022 * texture(rng, x, y, 2.4) * filled
    for lesion in patient.lesions:
        air *= 1 - _lesion(lesion, x, y)
    hollow = _windpipe(midline, y) + _stomach(rng, patient, x, y)
    soft = np.maximum(_trunk(patient, x, y) - air - hollow, 0)
    bone = _spine(patient, midline, y) + _ribs(patient, midline, y, cage)
    bone += _shoulders(patient, x, y)
    total: Field = (SOFT * soft + LUNG * air + patient.bone * (BONE - SOFT) * bone).astype(
        np.float32
    )
    return total


def _trunk(patient: Patient, x: Field, y: Field) -> Field:
    """Neck, shoulders, chest and belly."""
    top = patient.apex - 22
    chest = rise(y - np.float32(top), 9)
    shoulders = np.exp(-(((y - np.float32(top + 45)) / 48) ** 2))
    width = 52 + (patient.torso - 52) * chest + 55 * shoulders * chest
    depth = 105 + (patient.depth - 105) * chest + 25 * rise(y - np.float32(patient.base), 20)
    u = np.minimum(np.abs(x) / width, 1)
    thickness: Field = depth * np.sqrt(1 - u * u * np.sqrt(u))
    return thickness


def _cage(patient: Patient, y: Field) -> Field:
    """Half the inner width of the rib cage at each height; narrowest at its top."""
    length = 1.25 * (patient.base - patient.apex)
    h = np.clip((y - np.float32(patient.apex)) / np.float32(length), 0, 1)
    width: Field = 38 + (patient.cage - 38) * (1 - (1 - h) ** 2.4) ** np.float32(1 / 2.0)
    return width


def _lungs(patient: Patient, x: Field, y: Field, cage: Field) -> Field:
    """Depth of air-filled lung on both sides."""
    side = np.abs(x)
    # Above the aortic arch the lungs narrow to tips that stand some way off the midline.
    h = np.clip((y - np.float32(patient.apex)) / 75, 0, 1)
    tip = np.sqrt(h * (2 - h))
    outer = cage - 4 - side + 18 * (tip - 1) * (1 - tip)
    inner = side - (44 - 20 * tip)
    dome = np.float32(patient.base) + np.float32(patient.left_drop) * (x > 0)
    across = (side - np.float32(0.42 * patient.cage)) / np.float32(0.58 * patient.cage)
    below = (
        dome
        + patient.dome * across * across * np.where(across > 0, np.float32(1), np.float32(0.35))
        - y
    )
    depth = 0.86 * rounded(below, 22) + 0.14 * rounded(below + 34, 34)
    air: Field = (patient.depth * patient.air) * depth * rounded(outer, 55) * rounded(inner, 30)
    return air.astype(np.float32)


def _heart(patient: Patient, x: Field, y: Field) -> Field:
    """Heart, aorta and the roots of the lungs: what lies in the lungs' way near the midline."""
    s = patient.heart
    low = patient.base - 36
    solid = 125 * s * ellipsoid(x, y, (27 * s, low), (66 * s, 46 * s), patient.heart_tilt)
    solid += 85 * s * ellipsoid(x, y, (-10, low - 4), (36 * s, 42 * s))
    solid += 60 * ellipsoid(x, y, (20, low - 55), (26, 44))
    solid += 60 * ellipsoid(x, y, (22, -58), (patient.aorta, patient.aorta + 3))
    solid += 45 * ellipsoid(x, y, (-14, -55), (20, 60))
    for side, height in ((-1, -8), (1, -16)):
        solid += 34 * ellipsoid(x, y, (side * 36, height), (15, 25), -0.3 * side)
    return solid


def _vessels(patient: Patient, x: Field, y: Field, pixel: float) -> Field:
    """Vessels that branch from the roots of the lungs and taper towards the rim."""
    rng = np.random.default_rng([patient.seed, 1])
    roots = 11
    fan = np.linspace(-1.45, 1.5, roots)
    angle = np.concatenate([fan, np.pi - fan]) + rng.normal(0, 0.12, 2 * roots)
    px = np.repeat([34.0, -34.0], roots) + rng.normal(0, 4, 2 * roots)
    py = np.repeat([-14.0, -6.0], roots) + rng.normal(0, 12, 2 * roots)
    radius = rng.uniform(3.0, 5.0, 2 * roots) * patient.vessels
    drawn = np.zeros(x.size)
    total = np.zeros_like(x)
    for level in range(5):
        length = rng.uniform(12, 24, len(px)) * 0.95**level
        count = max(6, int(np.ceil(1.3 * length.max() / pixel)))
        along = np.linspace(0, 1, count)[None, :]
        step = (length / count)[:, None]
        bend = angle[:, None] + rng.normal(0, 0.35, len(px))[:, None] * along
        lx = px[:, None] + np.cumsum(np.cos(bend), 1) * step
        ly = py[:, None] + np.cumsum(np.sin(bend), 1) * step
        # Each point carries the vessel's volume around it into the pixel that it falls in.
        volume = np.pi * (radius[:, None] * (1 - 0.2 * along)) ** 2 * step / pixel**2
        place, inside = _pixels(x, y, lx.ravel(), ly.ravel())
        drawn += np.bincount(place, volume.ravel()[inside], minlength=x.size)
        if level in (1, 4):
            blur = max(0.45, 0.6 * float(radius.mean()) / pixel)
            image = drawn.reshape(x.shape).astype(np.float32)
            total += ndimage.gaussian_filter(image, blur, truncate=2.5)
            drawn[:] = 0
        spread = rng.uniform(0.2, 0.55, len(px))
        px, py = np.tile(lx[:, -1], 2), np.tile(ly[:, -1], 2)
        angle = np.concatenate([bend[:, -1] - spread, bend[:, -1] + spread])
        radius = np.tile(radius, 2) * rng.uniform(0.62, 0.78, 2 * len(radius))
    return total


def _pixels(
    x: Field, y: Field, px: NDArray[np.float64], py: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Flat indices of the pixels that hold the points, and which points lie in the image."""
    height, width = x.shape
    steps = [[x[0, 1] - x[0, 0], x[1, 0] - x[0, 0]], [y[0, 1] - y[0, 0], y[1, 0] - y[0, 0]]]
    away = np.stack([px - x[0, 0], py - y[0, 0]])
    column, row = np.rint(np.linalg.inv(np.array(steps, dtype=np.float64)) @ away)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return (row[inside] * width + column[inside]).astype(np.int64), inside


def _lesion(lesion: Lesion, x: Field, y: Field) -> Field:
    """Share of the air that a lesion replaces at each pixel."""
    rng = np.random.default_rng(lesion.seed)
    u = (x - np.float32(lesion.x)) * np.float32(1 / lesion.width)
    v = (y - np.float32(lesion.y)) * np.float32(1 / lesion.height)
    distance = np.sqrt(u * u + v * v)
    if lesion.kind == "consolidation":
        distance += 0.2 * texture(rng, x, y, 16.0) + 0.1 * texture(rng, x, y, 6.0)
        mottle = 1 - 0.12 * np.abs(texture(rng, x, y, 5.0))
    else:
        coarse = texture(rng, x, y, 9.0)
        fine = texture(rng, x, y, 2.6)
        distance += 0.3 * texture(rng, x, y, 24.0)
        # Ridges, where the noise crosses zero, make the network that thickened septa draw.
        mottle = np.clip(0.4 + 0.22 * coarse + 0.4 * np.exp(-2 * fine * fine), 0, 1.1)
    share: Field = lesion.share * rise(1 - distance, lesion.edge / 2) * mottle
    return np.clip(share, 0, 0.92)


def _windpipe(x: Field, y: Field) -> Field:
    """Air in the windpipe and the two main airways that it forks into."""
    side = np.abs(x + 2)
    fork = np.maximum(y + 38, 0)
    radius = 8 - 2.5 * rise(y + 38, 3)
    offset = np.abs(side - 0.95 * fork) * np.where(fork > 0, np.float32(0.72), np.float32(1))
    ends = rise(-12 - y, 4)
    air: Field = 15 * np.sqrt(np.maximum(1 - (offset / radius) ** 2, 0)) * ends
    return air


def _stomach(rng: np.random.Generator, patient: Patient, x: Field, y: Field) -> Field:
    """A bubble of gas below the left dome of the diaphragm, of any size down to none."""
    size = rng.uniform(-12, 28)
    if size < 6:
        return np.zeros_like(x)
    centre = (rng.uniform(50, 80), patient.base + patient.left_drop + 8 + size)
    return 1.2 * size * ellipsoid(x, y, centre, (1.4 * size, 0.8 * size), rng.uniform(-0.4, 0.4))


def _spine(patient: Patient, x: Field, y: Field) -> Field:
    """Vertebrae: bodies with denser end plates, gaps between them, and pedicles."""
    bend = np.sin(y * np.float32(np.pi / 190) + np.float32(patient.seed % 7))
    across = np.abs(x - np.float32(patient.curve) * bend)
    width = 15.5 + 0.018 * y
    phase = y * np.float32(1 / patient.vertebra)
    phase = (phase - np.floor(phase) - 0.5) * np.float32(patient.vertebra)
    reach = np.abs(phase)
    half = 0.42 * patient.vertebra
    body = rounded(width - across, 5) * (0.35 + 0.65 * rise(half - reach, 0.8))
    plates = np.exp(-(((reach - np.float32(half - 1)) / 1.6) ** 2)) * rise(width - across, 1.2)
    pedicles = np.exp(-(((across - 10.5) / 3) ** 2) - ((phase + 2) / 5) ** 2)
    spinous = np.exp(-((across / 3) ** 2) - ((phase - 5) / 6) ** 2)
    bone: Field = 9 * body + 2.5 * plates + 3.5 * pedicles + 3 * spinous
    return bone


def _ribs(patient: Patient, x: Field, y: Field, cage: Field) -> Field:
    """Ribs: each a ring that falls from back to front, so that it crosses itself in projection."""
    u = np.minimum(np.abs(x) / (cage + np.float32(1.5)), np.float32(1.02))
    depth = np.sqrt(np.maximum(1 - u * u, np.float32(0.015)))
    steep = np.float32(0.5 * patient.slope) * u / (depth * (cage + 20))
    upright = 1 / np.sqrt(1 + steep * steep)
    along = np.minimum(1 / depth, np.float32(2.6))
    first = patient.apex - 2
    outside = rise(1.0 - u, 0.006)
    bone = np.zeros_like(x)
    for back in (True, False):
        fall = np.float32(0.5 * patient.slope) * ((1 - depth) if back else (1 + depth))
        place = (y - np.float32(first) - fall) * np.float32(1 / patient.spacing)
        number = np.floor(place)
        d = (place - number - 0.5) * np.float32(patient.spacing) * upright
        r = np.float32(patient.rib_width * (1 if back else 1.15))
        inner = 1 - (d / (r - np.float32(1.3))) ** 2
        shell = 9 * np.sqrt(np.maximum(1 - (d / r) ** 2, 0))
        shell -= 5.6 * np.sqrt(np.maximum(inner, 0))
        last = patient.ribs if back else patient.ribs - 3
        shown = (number >= 0) & (number < last)
        # At the front, bone turns to cartilage, which hardly shows.
        end = rise(u - np.float32(0.12), 0.02) if back else rise(u - np.float32(0.5), 0.035)
        bone += shell * along * shown * end * np.float32(1.0 if back else 0.7)
    return bone * outside


def _shoulders(patient: Patient, x: Field, y: Field) -> Field:
    """Collar bones, shoulder blades and the heads of the upper arms."""
    side = np.abs(x)
    along = (side - 12) / 138
    course = patient.apex + 24 - patient.clavicle * along + 7 * np.sin(6 * along)
    radius = 5.2 + 3 * np.exp(-np.maximum(along, 0) * 7)
    d = (y - course) / radius
    collar = 11 * np.sqrt(np.maximum(1 - d * d, 0)) - 5.5 * np.sqrt(np.maximum(1 - 1.9 * d * d, 0))
    collar *= rise(side - 12, 1.5) * rise(150 - side, 3)
    inner = np.float32(0.72 * patient.cage) + 0.22 * (y - np.float32(patient.apex)) - side
    blade = rise(-inner, 1.2) * rise(side * -1 + np.float32(patient.cage + 28), 3)
    blade *= rise(y - np.float32(patient.apex + 22), 4) * rise(20 - y - 0.4 * (side - 110), 4)
    blade *= 2.0 + 3.0 * np.exp(-((inner / 2.5) ** 2))
    arm = np.float32(patient.torso + 14)
    head = 8 * ellipsoid(side, y, (float(arm), patient.apex + 32), (25, 27))
    bone: Field = collar + blade + head
    return bone
