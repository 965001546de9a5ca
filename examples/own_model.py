# %% [markdown]
# # Your own model and your own folder of images
#
# From a network that Jernih has never seen to a report-grade answer to one question: what does
# a purifier before it give, against an attacker who does not know it and against one who does?
# Run it cell by cell, or as a whole: `python examples/own_model.py`. `JERNIH_QUICK=1` makes
# everything small.

# %%
import os
import tempfile
from pathlib import Path

import torch
from torch import nn

from jernih import FGSM, PGD, AssessmentPlan, Classifier, Defended
from jernih.assess import assess, console_table
from jernih.data.modify import ImageDataset, Prepare
from jernih.data.sample import SplitPlan, sample
from jernih.data.sources import SOURCES
from jernih.detectors import DETECTORS
from jernih.purifiers import restore_purifier

QUICK = os.environ.get("JERNIH_QUICK") == "1"
WORK = Path(tempfile.mkdtemp(prefix="jernih-"))
SIZE, IMAGES, EPOCHS = (32, 120, 8) if QUICK else (64, 600, 15)

# %% [markdown]
# ## A folder of images
#
# Yours has a folder for each class. Here the embedded source draws one: synthetic radiographs,
# NORMAL and PNEUMONIA.

# %%
drawn = SOURCES.create("phantom", images=IMAGES, size=SIZE, defects=False)(WORK / "drawn")
folder = drawn[0].path.parent.parent
print(folder, sorted(place.name for place in folder.iterdir()))

# %% [markdown]
# ## Splits by patient
#
# `sample` reads the folder into a manifest. The pattern says which part of a file's name is the
# patient, so that nobody's images are on two sides.

# %%
print("a file's name:", drawn[0].path.name)
source = SOURCES.create("folder", path=folder, patient_pattern=r"^phantom-(\w\d+)-")
manifest = sample(source, SplitPlan(test=0.25, val=0.25), WORK)
prepare = Prepare(SIZE)
print(len({record.patient for record in manifest.records}), "patients")
data = {name: ImageDataset(manifest.split(name), prepare) for name in ("train", "val", "test")}
print({name: len(images) for name, images in data.items()})

# %% [markdown]
# ## The model to defend
#
# Yours is trained already; this one is trained here, in plain PyTorch, to stand for it. Note
# that it wants normalised images.

# %%
torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(3, 16, 5, stride=2, padding=2),
    nn.BatchNorm2d(16),
    nn.ReLU(),
    nn.Conv2d(16, 32, 3, stride=2, padding=1),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(4),
    nn.Flatten(),
    nn.Linear(512, 2),
)
loader = torch.utils.data.DataLoader(data["train"], 16, shuffle=True)
optimiser = torch.optim.Adam(network.parameters(), 1e-3)
for _ in range(EPOCHS):
    for images, labels, _ in loader:
        loss = nn.functional.cross_entropy(network((images - 0.5) / 0.25), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

# %% [markdown]
# ## One wrapper: images in [0, 1] → logits
#
# The normalisation moves inside, where no attack sees it. Compare the accuracy with what your
# own code says: if it is another, stop here and find out why.

# %%
classifier = Classifier(network, manifest.classes, mean=(0.5,) * 3, std=(0.25,) * 3).eval()
images = torch.stack([image for image, _, _ in data["test"]])
labels = torch.tensor([label for _, label, _ in data["test"]])


def right(model: nn.Module, shown: torch.Tensor) -> float:
    """The share of the test images that a model gets right."""
    with torch.no_grad():
        return float((model(shown).argmax(1) == labels).float().mean())


print(f"right on {right(classifier, images):.1%} of {len(labels)} clean test images")

# %% [markdown]
# ## How easily is it fooled?
#
# FGSM is one step and needs one gradient for all bounds. PGD takes many and is stronger.

# %%
bounds = ["1/255", "4/255", "8/255"]
for attack in (FGSM(), PGD(steps=10)):
    for bound, made in zip(bounds, attack.sweep(classifier, images, labels, bounds), strict=True):
        print(f"{attack.name}, L∞ ≤ {bound}: right on {right(classifier, made.images):.1%}")

# %% [markdown]
# ## Put a purifier before it
#
# This one comes trained, on other radiographs and with another classifier. The detector looks
# at how far the answer moves when the image is restored; its threshold is set on validation
# images.

# %%
purifier = restore_purifier("jernih-s-chest-xray")
detector = DETECTORS.create("jensen-shannon", classifier=classifier, purifier=purifier)
with torch.no_grad():
    calm = detector(torch.stack([image for image, _, _ in data["val"]]))
calibration = detector.calibrate(calm, fpr=0.1)
defended = Defended(classifier, purifier, detector, prepare=prepare).eval()
print(calibration)

# %% [markdown]
# ## The honest table
#
# `assess` attacks the classifier (oblivious) and the whole defended model (adaptive), and gives
# every figure with its interval. Compare the two lines of the same bound.

# %%
plan = AssessmentPlan(PGD(steps=10), ["1/255", "4/255"])
paths = [str(record.path) for record in data["test"].manifest.records]
assessment = assess(defended, data["test"], paths, plan)

from rich.console import Console  # noqa: E402 - beside what it is for

Console(width=100).print(console_table(assessment))
for finding in assessment.warnings:
    print(f"{finding.severity}: {finding.text}\n")

# %% [markdown]
# ## Keep it
#
# One folder with safetensors. The network is no name that Jernih knows, so for
# `save_pretrained` the classifier has to come from `load_classifier("module:factory", …)`;
# [docs/own-classifier.md](../docs/own-classifier.md) shows it. The assessment can always be
# kept.

# %%
print("kept:", assessment.save(WORK / "assessment.json"))
