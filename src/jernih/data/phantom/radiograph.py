"""Taking a radiograph: what lies behind the body becomes a picture on the screen."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from jernih.data.phantom.patient import Patient
from jernih.data.phantom.shapes import Field
from jernih.data.phantom.thickness import attenuation
from jernih.validate import check_number

_AIR = 0.3
"""Density below which a pixel shows the air beside the body."""


def render(rng: np.random.Generator, label: str, size: int = 224) -> Field:
    """Draw a new patient and take one radiograph.

    Args:
        rng: source of all that varies; the same state gives the same image.
        label: "NORMAL" or "PNEUMONIA".
        size: width and height in pixels, 32 to 2048.

    Returns:
        float32 (size, size) in [0, 1], bone bright. It says nothing clinical.

    Raises:
        InputError: for another label or size.

    Example:
        >>> image = render(np.random.default_rng(0), "NORMAL", size=64)
        >>> image.shape, image.dtype.name
        ((64, 64), 'float32')
    """
    return expose(Patient.draw(rng, label), rng, size)


def expose(patient: Patient, rng: np.random.Generator, size: int = 224) -> Field:
    r"""Take a radiograph of a patient, with its own small change of pose and exposure.

    The intensity behind the body follows Beer and Lambert, with scattered radiation as a blurred
    share s of what arrives; the image is its windowed logarithm:

    .. math:: I = I_0 e^{-\sum_m μ_m t_m}, \quad I' = (1 - s) I + s\, (G * I)

    Quantum noise is drawn from the normal distribution with the Poisson distribution's variance,
    which no eye tells apart at the several hundred quanta a pixel that arrive at the least.

    Args:
        patient: the anatomy.
        rng: source of pose, exposure and noise.
        size: width and height in pixels, 32 to 2048.

    Returns:
        float32 (size, size) in [0, 1], bone bright.

    Raises:
        InputError: for another size.
    """
    check_number("size", size, 32, 2048)
    pixel = rng.uniform(305, 350) / size
    x, y = _pose(rng, size, pixel, patient.size)
    # A patient turned a little about the vertical axis shows the spine off the midline.
    turn = rng.normal(0, 2.5)
    exponent = attenuation(patient, x, y, turn, pixel / patient.size)
    arriving = np.exp(-exponent)
    scatter = rng.uniform(0.12, 0.3)
    # Two running means come close to a wide Gaussian at a fraction of the time.
    spread, reach = arriving, int(110 / pixel)
    for _ in range(2):
        spread = ndimage.uniform_filter(spread, reach, mode="nearest")
    arriving = (1 - scatter) * arriving + scatter * spread
    quanta = rng.uniform(3e4, 2e5)
    noise = rng.standard_normal((size, size), dtype=np.float32)
    arriving += noise * np.sqrt(arriving / quanta)
    np.maximum(arriving, 0.5 / quanta, out=arriving)
    blur = rng.uniform(0.7, 1.3) * max(1.0, pixel) / pixel * 0.45
    arriving = ndimage.gaussian_filter(arriving, blur, truncate=3)
    return _window(rng, -np.log(arriving))


def _pose(rng: np.random.Generator, size: int, pixel: float, scale: float) -> tuple[Field, Field]:
    """Coordinates in the patient's own millimetres of each pixel, tilted and shifted a little."""
    along = ((np.arange(size) + 0.5) / size - 0.5) * size * pixel / scale
    tilt = rng.normal(0, 0.03)
    across = along[None, :] - rng.normal(0, 6)
    down = along[:, None] - rng.normal(-4, 6)
    x = np.cos(tilt) * across + np.sin(tilt) * down
    y = np.cos(tilt) * down - np.sin(tilt) * across
    return x.astype(np.float32), y.astype(np.float32)


def _window(rng: np.random.Generator, density: Field) -> Field:
    """Map logarithmic density to grey levels as a viewing station would.

    The window goes from somewhat clearer than the lungs to the densest bone, each time a little
    differently.
    """
    body = density[::3, ::3]
    body = body[body > _AIR]
    lungs, bones = np.percentile(body, (rng.uniform(5, 9), rng.uniform(98.5, 99.8)))
    low = lungs * rng.uniform(0.5, 0.8)
    grey = np.clip((density - np.float32(low)) / np.float32(bones - low), 0, 1)
    window: Field = np.float32(rng.uniform(0.88, 1)) * grey ** np.float32(rng.uniform(0.85, 1.1))
    return window
