"""The adversarial set: attacked partners of a data set's images, made once and kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from jernih.attacks import Attack
from jernih.classifiers import Classifier
from jernih.data.modify import ImageDataset
from jernih.randomness import generator
from jernih.storage import read_json, write_json
from jernih.validate import InputError

STEPS = 127
"""Perturbations are kept as whole multiples of eps / 127, which is exact for sign attacks."""


class AdversarialSet:
    """Perturbations of all images of a data set for each of several bounds.

    Args:
        folder: where :func:`write_adversarial_set` wrote them.

    Raises:
        InputError: when the folder holds no whole set.
    """

    def __init__(self, folder: Path) -> None:
        try:
            card = read_json(folder / "adversarial.json")
            self.epsilons = tuple(float(eps) for eps in card["epsilons"])
            self._stored = np.load(folder / "adversarial.npy", mmap_mode="r")
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError("adversarial set", "a folder with a whole one", folder) from error
        if card["done"] != len(self):
            raise InputError("adversarial set", f"{len(self)} images", card["done"])

    def __len__(self) -> int:
        return int(self._stored.shape[1])

    def attacked(self, images: Tensor, index: Tensor, choice: Tensor) -> Tensor:
        """The attacked partners of some images.

        Args:
            images: the clean images (N, C, H, W), not varied.
            index: their positions in the data set (N,).
            choice: which bound to use for each (N,); the number of bounds means none.
        """
        made = images.clone()
        for row, (position, bound) in enumerate(zip(index.tolist(), choice.tolist(), strict=True)):
            if bound < len(self.epsilons):
                steps = torch.from_numpy(np.array(self._stored[bound, position])).to(images)
                made[row] += steps * (self.epsilons[bound] / STEPS)
        return made.clamp(0, 1)


def write_adversarial_set(
    folder: Path,
    classifier: Classifier,
    attack: Attack,
    epsilons: Sequence[float],
    dataset: ImageDataset,
    *,
    seed: int = 0,
    batch_size: int = 32,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> AdversarialSet:
    """Attack every image of a data set once for each bound, or go on where that was interrupted.

    Args:
        folder: receives ``adversarial.npy``, int8 (bounds, images, C, H, W), and
            ``adversarial.json``. Only files of the same settings may lie there.
        classifier: the classifier to attack (an oblivious attacker).
        attack: an L∞ attack.
        epsilons: its bounds.
        dataset: images without augmentation.
        seed: seed of the attack's randomness.
        batch_size: images attacked together.
        device: ``"cpu"`` or ``"cuda"``.
        progress: called with images done and images in all.

    Raises:
        InputError: for an attack in another norm, and for a bound of zero.
    """
    if not epsilons or min(epsilons) <= 0:
        raise InputError("epsilons", "bounds above 0", tuple(epsilons))
    if attack.norm != "linf":
        raise InputError("attack", "one in the L∞ norm for an adversarial set", attack.norm)
    folder.mkdir(parents=True, exist_ok=True)
    card, file = folder / "adversarial.json", folder / "adversarial.npy"
    shape = (len(epsilons), len(dataset), *dataset[0][0].shape)
    done = 0
    if card.is_file() and file.is_file():
        done = int(read_json(card)["done"])
    # A set that is begun anew is opened for writing, which empties it.
    mode = "r+" if done else "w+"
    stored = np.lib.format.open_memmap(file, mode=mode, dtype=np.int8, shape=shape)
    target = classifier.frozen().to(device)
    rest = torch.utils.data.Subset(dataset, range(done, len(dataset)))
    loader = DataLoader(rest, batch_size, generator=generator(seed, "adversarial set"))
    for images, labels, _ in loader:
        clean = images.to(device)
        source = generator(seed, "adversarial set", done)
        made = attack.perturb(target, clean, labels.to(device), epsilons, generator=source)
        for bound, (eps, attacked) in enumerate(zip(epsilons, made, strict=True)):
            steps = ((attacked - clean) * (STEPS / eps)).round().clamp(-STEPS, STEPS)
            stored[bound, done : done + len(images)] = steps.to(torch.int8).cpu().numpy()
        stored.flush()
        done += len(images)
        write_json(card, {"epsilons": list(epsilons), "done": done, "attack": attack.describe()})
        if progress is not None:
            progress(done, len(dataset))
    return AdversarialSet(folder)
