"""Images, overlays and the gauge as the page shows them."""

from __future__ import annotations

import html
import math

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import Tensor

from jernih.answer import Answer

Pixels = NDArray[np.uint8]
"""(H, W, 3)."""

OPACITY = 0.65
DECADES = 2
"""Powers of ten to either side of the threshold that the gauge spans."""


def pixels(image: Tensor) -> Pixels:
    """An image (3, H, W) in [0, 1] in 8 bits, (H, W, 3)."""
    shown: Pixels = (image.permute(1, 2, 0).clamp(0, 1) * 255).round().numpy().astype(np.uint8)
    return shown


def difference(first: Tensor, second: Tensor, times: float) -> Pixels:
    """Where and how two images (3, H, W) differ, so many times enlarged; grey is no difference."""
    return pixels(0.5 + times * (second - first))


def overlay(image: Tensor, areas: Tensor) -> Pixels:
    """An image (3, H, W) under the heat of areas (H, W) in [0, 1]; where that is 0 it shows."""
    heat = areas.clamp(0, 1).numpy()
    colours = np.asarray(colormaps["inferno"](heat))[..., :3]
    weight = (OPACITY * heat)[..., None]
    mixed = (1 - weight) * image.permute(1, 2, 0).clamp(0, 1).numpy() + weight * colours
    shown: Pixels = (mixed * 255).round().astype(np.uint8)
    return shown


def verdict(answer: Answer) -> str:
    """What the defended model says of an image, in a sentence."""
    share = 100 * answer.probabilities[answer.label]
    told = f"{answer.label}, {share:.1f} % sure"
    if answer.action == "rejected":
        return f"Rejected as suspicious; it would have been called {told}."
    doubt = {True: "suspicious", False: "not suspicious", None: "no detector asked"}[answer.flagged]
    done = "classified as it came" if answer.action == "as it came" else "restored, then classified"
    return f"{told}: {done}; {doubt}."


def gauge(answer: Answer) -> str:
    """How suspicious an image is beside the threshold, as HTML that a screen reader can read.

    The scale is logarithmic: scores of detectors span many powers of ten.
    """
    if answer.suspicion is None:
        return "<p>There is no detector beside this purifier.</p>"
    if answer.threshold is None:
        return f"<p>Suspicion {answer.suspicion:.3g}; no threshold was set.</p>"
    if answer.threshold > 0 and answer.suspicion > 0:
        ratio = answer.suspicion / answer.threshold
        place = min(max(math.log10(ratio), -DECADES), DECADES)
        told = f"{ratio:.3g} times the threshold"
    else:  # scores of some detectors are below 0: their distance tells then
        apart = answer.suspicion - answer.threshold
        place = math.copysign(min(abs(apart), DECADES), apart)
        told = f"{abs(apart):.3g} {'above' if apart > 0 else 'below'} the threshold"
    word = "suspicious" if answer.flagged else "not suspicious"
    label = html.escape(f"Suspicion: {word}, {told}")
    share = 100 * (place + DECADES) / (2 * DECADES)
    colour = "#b3261e" if answer.flagged else "#1b6e3c"
    return (
        f'<div role="img" aria-label="{label}" class="jernih-gauge">'
        f'<div class="jernih-gauge-bar" style="width:{share:.1f}%;background:{colour}"></div>'
        '<div class="jernih-gauge-mark" title="threshold"></div></div>'
        f"<p>{label}</p>"
    )
