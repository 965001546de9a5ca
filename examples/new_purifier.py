# %% [markdown]
# # A new purifier, trained in five minutes
#
# We write a small residual network, train it to restore what FGSM destroys, and then do what
# most papers leave out: let an attacker have it. `python examples/new_purifier.py`;
# `JERNIH_QUICK=1` makes it small.

# %%
import os
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from jernih import PGD, AssessmentPlan, Defended, Pipeline, load_config
from jernih.adaptive import check_gradients
from jernih.assess import assess, console_table
from jernih.purifiers import JPEG, PURIFIERS, Identity, Purifier

QUICK = os.environ.get("JERNIH_QUICK") == "1"
WORK = Path(tempfile.mkdtemp(prefix="jernih-"))

# %% [markdown]
# ## The network
#
# One class, one method. It predicts what to *take away*, so that an untrained one (its last
# layer starts at zero) changes nothing: the training begins at the identity and not at noise.


# %%
@PURIFIERS.register("little-residual")
class LittleResidual(Purifier):
    """Four convolutions, dilated to see farther, whose output is subtracted."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
        for dilation in (2, 4):
            layers += [nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation), nn.ReLU()]
        last = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def restore(self, images: Tensor) -> Tensor:
        """Return restored images; the base clamps them."""
        restored: Tensor = images - self.layers(images)
        return restored


example = torch.rand(1, 3, 32, 32)
assert torch.equal(PURIFIERS.create("little-residual").eval()(example), example)

# %% [markdown]
# ## The training, as a config
#
# Everything else is the embedded default. `guidance` lets the classifier teach: the loss weighs
# how it sees the restored image, not only the pixels. `labels: predicted` keeps the true label
# out of the attack, where the purifier could learn to read it.

# %%
side, count, epochs = (32, 120, 2) if QUICK else (64, 600, 12)
config = load_config(
    None,
    [
        f"sample.source={{name: phantom, images: {count}, size: {side}}}",
        f"modify.size={side}",
        "model.purifier={name: little-residual}",
        f"model.purifier_training={{epochs: {epochs}, batch_size: 16, lr: 0.002}}",
        f"model.classifier_training.epochs={4 if QUICK else 12}",
        "model.guidance={pixel: charbonnier, pixel_weight: 50, logits: 1, labels: predicted}",
        "model.epsilons=[1/255, 2/255, 4/255]",
        "model.detector=null",
    ],
)
pipeline = Pipeline(config, out=WORK / "run")
defended = pipeline.model()  # trains the classifier, then the purifier

# %% [markdown]
# ## What does it take away?
#
# Look before you count. The mean size of what it removes from clean images is what everybody
# pays; from attacked ones it should be more, and near what was added.

# %%
test = pipeline.modify()["test"]
images = torch.stack([image for image, _, _ in test])
labels = torch.tensor([label for _, label, _ in test])
attacked = PGD("4/255", steps=5)(defended.classifier, images, labels).images
with torch.no_grad():
    for name, shown in (("clean", images), ("attacked", attacked)):
        taken = (shown - defended.purifier(shown)).abs().mean() * 255
        print(f"takes {float(taken):.2f} grey levels from {name} images")
print(f"the attack had added {float((attacked - images).abs().mean() * 255):.2f}")

# %% [markdown]
# ## The assessment
#
# With an attack that it was **not** trained against, oblivious and adaptive, beside two
# controls: a purifier that does nothing, and JPEG, which learns nothing. If it does not beat
# JPEG, it has learnt nothing either.

# %%
plan = AssessmentPlan(PGD(steps=10), ["4/255"])
paths = [str(record.path) for record in test.manifest.records]
for purifier in (defended.purifier, Identity(), JPEG(50)):
    candidate = Defended(defended.classifier, purifier).eval()
    assessment = assess(candidate, test, paths, plan)
    print(purifier.name)
    Console(width=100).print(console_table(assessment))

# %% [markdown]
# ## Is the adaptive line to be believed?
#
# Only if the attacker's gradient means something. For a smooth network it does; for a codec it
# is a stand-in, and the verdict says so.

# %%
for purifier in (defended.purifier, JPEG(50)):
    candidate = Defended(defended.classifier, purifier).eval()
    print(f"{purifier.name}: {check_gradients(candidate, images[:8], labels[:8]).verdict}\n")

# %% [markdown]
# ## What you have seen
#
# A few minutes of training win much back from an attacker who does not know the purifier, and
# little from one who does. Training against the second (`guidance.through`) is the next step;
# [docs/train-a-purifier.md](../docs/train-a-purifier.md) goes on from here.
