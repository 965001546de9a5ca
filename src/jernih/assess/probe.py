"""What a few images tell of a model before it is attacked: signs that the attack will be weak."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from jernih.adaptive import Expectation
from jernih.adaptive.signs import differing, gradient_of, out_of_range, saturated, two_calls
from jernih.assess.observations import Array
from jernih.assess.result import Probe

COLUMNS = 6
"""Values in a row of :func:`probe`."""

PROBED = 16
"""Images that are looked at, which costs next to nothing beside an assessment."""


def probe(
    model: nn.Module, images: Tensor, labels: Tensor, seen: Tensor, *, gradients: bool
) -> Array:
    """Look at the first images of a batch.

    Args:
        model: images → logits, as it is attacked.
        images: clean images (N, C, H, W) in [0, 1].
        labels: their classes (N,).
        seen: what the classifier in it gets to see of them: the images, or the restored ones.
        gradients: whether the attack follows them.

    Returns:
        counts of images as int64: all, those whose two calls differ, those without a gradient and
        those with a saturated loss (−1 where gradients are of no interest), those seen with pixels
        outside [0, 1]; and whether the model takes the mean over draws.
    """
    images, labels = images[:PROBED], labels[:PROBED]
    first, second = two_calls(model, images)
    without = flat = -1
    if gradients:
        gradient, logits = gradient_of(model, images, labels)
        without = int(gradient.flatten(1).eq(0).all(1).sum())
        flat = int(saturated(logits, labels).sum())
    averaged = any(isinstance(module, Expectation) for module in model.modules())
    random, outside = differing(first, second), out_of_range(seen[:PROBED])
    counts = [len(images), int(random.sum()), without, flat, int(outside.sum()), int(averaged)]
    return np.array(counts, dtype=np.int64)


def read_probes(rows: Array) -> tuple[Probe, ...]:
    """The rows that :func:`probe` gave for the classifier and the defended model, if there are."""
    found = []
    for name, row in zip(("classifier", "defended model"), rows.tolist(), strict=False):
        count, random, without, flat, outside, averaged = row
        asked = without >= 0
        found.append(
            Probe(
                model=name,
                n=count,
                random=random,
                averaged=bool(averaged),
                outside=outside,
                without_gradient=without if asked else None,
                saturated=flat if asked else None,
            )
        )
    return tuple(found)
