# %% [markdown]
# # A new attack in one file
#
# We write NI-FGSM (Lin et al., arXiv:1908.06281), which Jernih does not have: momentum that
# looks ahead before it takes the gradient. Then we find out whether it is worth having: `python
# examples/new_attack.py`; `JERNIH_QUICK=1` makes it small.

# %%
import os
import tempfile
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from jernih import Pipeline, load_config
from jernih.attacks import ATTACKS, MIFGSM, PGD, Attack
from jernih.attacks.asking import slope
from jernih.validate import check_count, check_number

QUICK = os.environ.get("JERNIH_QUICK") == "1"
WORK = Path(tempfile.mkdtemp(prefix="jernih-"))

# %% [markdown]
# ## The method, and nothing else
#
# A subclass writes `run`: images in, attacked images out. What everyone gets wrong once, the
# base does: it checks the arguments, projects onto the bound and [0, 1], and asks the model
# again whether it is fooled.


# %%
@ATTACKS.register("ni-fgsm")
class NIFGSM(Attack):
    """Nesterov's iterative gradient sign method (Lin et al., arXiv:1908.06281)."""

    reference: ClassVar[str] = "arXiv:1908.06281"

    def __init__(
        self,
        eps: float | str = "8/255",
        *,
        targeted: bool = False,
        steps: int = 10,
        decay: float = 1.0,
    ) -> None:
        super().__init__(eps, targeted=targeted)
        self.steps = check_count("steps", steps)
        self.decay = check_number("decay", decay, 0, 10)

    def run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        eps: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return attacked images for one bound."""
        step = (-1 if self.targeted else 1) * eps / self.steps
        attacked, momentum = images, torch.zeros_like(images)
        for _ in range(self.steps):
            ahead = (attacked + step * self.decay * momentum).clamp(0, 1)
            gradient, _ = slope(model, ahead, labels)
            size = gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
            momentum = self.decay * momentum + gradient / size
            attacked = (attacked + step * momentum.sign()).clamp(0, 1)
        return attacked


# %% [markdown]
# Registered, it has a name, can be made from a config, and a wrong option is refused in a
# sentence.

# %%
attack = ATTACKS.create("ni-fgsm", eps="4/255", steps=10)
print(attack.describe(), attack.norms, attack.needs, "targeted form:", NIFGSM.targetable)

# %% [markdown]
# ## Something to attack
#
# Two classifiers of the embedded demonstration, which differ in the seed of everything.
# Attacking one and asking the other is *transfer*: what a stranger without the weights can do.
# That is what momentum is for.

# %%
small = {"images": 120, "size": 32} if QUICK else {"images": 400, "size": 64}
epochs = 4 if QUICK else 12


def trained(seed: int) -> Pipeline:
    """A run of the embedded default, made small."""
    settings = [
        f"sample.source={{name: phantom, images: {small['images']}, size: {small['size']}}}",
        f"modify.size={small['size']}",
        f"model.classifier_training.epochs={epochs}",
        f"model.classifier_training.patience={epochs}",
        "model.purifier={name: identity}",
        "model.purifier_training=null",
        "model.detector=null",
        f"seed={seed}",
    ]
    return Pipeline(load_config(None, settings), out=WORK / f"run-{seed}")


ours, other = trained(0), trained(1)
mine, theirs = ours.model().classifier.frozen(), other.model().classifier.frozen()

# %% [markdown]
# Test images that both get right: an image that is wrong anyway says nothing of an attack.

# %%
rows = list(ours.modify()["test"])
images = torch.stack([image for image, _, _ in rows])
labels = torch.tensor([label for _, label, _ in rows])
with torch.no_grad():
    both = (mine(images).argmax(1) == labels) & (theirs(images).argmax(1) == labels)
images, labels = images[both], labels[both]
print(len(labels), "of", len(both), "images")

# %% [markdown]
# ## Does it keep its word?
#
# Three promises of every attack: within the bound, within [0, 1], and a success is a success
# when asked again.

# %%
result = attack(mine, images, labels)
assert float((result.images - images).abs().max()) <= attack.eps + 1e-6
assert float(result.images.min()) >= 0
assert float(result.images.max()) <= 1
assert torch.equal(mine(result.images).argmax(1) != labels, result.success)

# %% [markdown]
# A fourth, which catches mistakes that the others do not: without momentum and look-ahead it
# *is* the basic iterative method, PGD without a random start, step for step.

# %%
plain = NIFGSM("4/255", steps=10, decay=0)(mine, images, labels)
basic = PGD("4/255", steps=10, step_size=0.1, random_start=False, stop_early=False)
print(
    "differs from PGD by at most",
    float((plain.images - basic(mine, images, labels).images).abs().max()),
)

# %% [markdown]
# ## Is it any better?
#
# Against the model that it sees, and against the one that it does not. A fair comparison gives
# all the same bound and the same number of gradients. With so few images look at the counts
# before you believe in a difference.

# %%
for other_attack in (PGD("8/255", steps=10), MIFGSM("8/255", steps=10), NIFGSM("8/255")):
    made = other_attack(mine, images, labels)
    carried = int((theirs(made.images).argmax(1) != labels).sum())
    fooled = int(made.success.sum())
    print(f"{other_attack.name:8} fools {fooled:3} of {len(labels)}, carries over on {carried:3}")

# %% [markdown]
# ## Into the house
#
# To have it in `jernih list attacks`, in configs and in the contract tests, move the class to
# `src/jernih/attacks/ni_fgsm.py` and add an import line: `CONTRIBUTING.md` shows the whole
# change.
