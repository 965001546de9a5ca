"""What the processes of a test do that torchrun starts: a run, certificates, purified files."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from jernih.attack_files import AttackFolder, attack_files, find_images, find_source
from jernih.attacks import PGD
from jernih.certify import CertifyPlan
from jernih.classifiers import load_classifier
from jernih.data.modify import Prepare
from jernih.pipeline import Pipeline
from jernih.purifiers import PURIFIERS
from jernih.purify_files import purify_files
from jernih.storage import write_json
from jernih.world import in_shares, join_world, leave_world
from tests.helpers import small_run

SURVEYS = [
    {"title": "bounds", "attack": {"name": "pgd", "steps": 2}, "epsilons": [0.05, 0.1], "limit": 13}
]
DETECTION = [
    {
        "title": "detectors",
        "detectors": {"one": {"name": "reconstruction-error"}, "two": {"name": "jensen-shannon"}},
        "attacks": [{"attack": {"name": "fgsm"}, "epsilons": [0.1]}],
        "harmless": [{"name": "gaussian-noise", "std": 0.02}],
    }
]


def config(root: Path) -> Pipeline:
    changes = {"assess.surveys": SURVEYS, "assess.detection": DETECTION, "assess.batch_size": 3}
    return Pipeline(small_run(root, **changes))


def attacked(root: Path, out: Path) -> None:
    """Files attacked in batches of three, with an attack that draws."""
    source = find_source(str(root / "images"))
    images = find_images(source, out / "source", limit=14)
    classifier = load_classifier("test_efficientnet", images.classes)
    folder = AttackFolder(out / "attacked")
    attack = PGD(0.1, steps=2, restarts=2)
    attack_files(classifier, images, attack, folder, prepare=Prepare(32), batch_size=3)


def main(root: Path, out: Path) -> None:
    torch.set_num_threads(1)
    world = join_world()
    pipeline = config(root)
    pipeline.folder.path = out
    out.mkdir(exist_ok=True)
    pipeline.run()
    plan = CertifyPlan(0.1, samples=50, alpha=0.01, radii=(0.0, 0.1), limit=5)
    pipeline.certify(plan)
    purifier = PURIFIERS.create("median", size=3).eval()
    made = purify_files(root / "images", out / "purified", purifier, device="cpu")
    attacked(root, out)
    seen: list[int] = []
    results = list(in_shares(range(7), lambda: lambda k: seen.append(k) or k * k, kept=True))  # type: ignore[func-returns-value]
    facts = {
        "size": world.size,
        "written": [str(file.relative_to(out)) for file in made.written],
        "results": results,
        "first": world.gathered(seen[: len(seen) - 7]),
        "told": world.told(world.rank),
    }
    write_json(out / f"facts-{world.rank}.json", facts)
    leave_world()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
