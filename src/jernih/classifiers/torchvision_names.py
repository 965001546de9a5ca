"""Key names of torchvision's models, translated to timm's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_MOBILENET_STAGES = (1, 2, 3, 4, 3, 3, 1)


def mobilenet_v2_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a MobileNetV2's tensors from torchvision's key names to timm's.

    Tensors under names of neither are returned unchanged.
    """
    if "features.0.0.weight" not in state:
        return dict(state)
    prefixes = {"features.0.0": "conv_stem", "features.0.1": "bn1"}
    prefixes |= {"features.18.0": "conv_head", "features.18.1": "bn2", "classifier.1": "classifier"}
    index = 1
    for stage, repeats in enumerate(_MOBILENET_STAGES):
        for block in range(repeats):
            old, new = f"features.{index}.conv", f"blocks.{stage}.{block}"
            names = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
            places = ["0.0", "0.1", "1.0", "1.1", "2", "3"]
            if stage == 0:
                names, places = ["conv_dw", "bn1", "conv_pw", "bn2"], ["0.0", "0.1", "1", "2"]
            prefixes |= {f"{old}.{p}": f"{new}.{n}" for p, n in zip(places, names, strict=True)}
            index += 1
    renamed = {}
    for name, value in state.items():
        found = re.fullmatch(r"(.+)\.([^.]+)", name)
        prefix, leaf = found.groups() if found else (name, "")
        renamed[f"{prefixes[prefix]}.{leaf}" if prefix in prefixes else name] = value
    return renamed
