"""The same attacks with the same settings in each library, for `attacks.py`.

Every function takes a model, images and labels and returns attacked images. Ours is given the
prepared copy that :meth:`Classifier.frozen` makes; the others are given the classifier as it is, as
their documentation shows. None of them checks its outcome again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jernih.attacks import ATTACKS
from jernih.attacks.asking import parts
from jernih.randomness import generator

Run = Callable[[nn.Module, Tensor, Tensor], Tensor]
LIBRARIES = ("jernih", "torchattacks", "foolbox", "art")
STEP = 0.25
"""Step size of PGD, as a share of the bound."""


@dataclass(frozen=True)
class Setting:
    """What all libraries are given alike.

    Attributes:
        attack: our name of the attack.
        eps: bound in L∞; None for attacks that look for the smallest perturbation.
        steps: steps (queries, for black-box attacks).
        classes: how many classes the model has.
    """

    attack: str
    eps: float | None
    steps: int
    classes: int

    def __str__(self) -> str:
        bound = "" if self.eps is None else f", eps {self.eps:g}"
        return f"{self.attack}, {self.steps} step{'s' * (self.steps != 1)}{bound}"


def of_jernih(setting: Setting) -> Run | None:
    """Ours."""
    options: dict[str, dict[str, Any]] = {
        "fgsm": {},
        "pgd": {
            "steps": setting.steps,
            "step_size": STEP,
            "random_start": False,
            "stop_early": False,
        },
        "deepfool": {"steps": setting.steps, "classes": min(10, setting.classes)},
        "carlini-wagner": {
            "steps": setting.steps,
            "searches": 1,
            "initial": 1.0,
            "stop_early": False,
        },
        "apgd": {"steps": setting.steps},
        "square": {"queries": setting.steps},
        "auto-attack": {"steps": setting.steps, "queries": 10 * setting.steps},
    }
    bounds = {} if setting.eps is None else {"eps": setting.eps}
    attack = ATTACKS.create(setting.attack, **options[setting.attack], **bounds)
    eps = attack.eps

    def run(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return attack.perturb(model, images, labels, [eps], generator=generator("benchmark"))[0]

    return run


def of_torchattacks(setting: Setting) -> Run | None:
    """torchattacks; its AutoAttack is put together from its parts, so that all have these steps."""
    import torchattacks as peer

    eps, steps = setting.eps, setting.steps
    few = min(10, setting.classes)
    makers: dict[str, Callable[[nn.Module], Any]] = {
        "fgsm": lambda model: peer.FGSM(model, eps=eps),
        "pgd": lambda model: peer.PGD(
            model, eps=eps, alpha=STEP * (eps or 0), steps=steps, random_start=False
        ),
        "carlini-wagner": lambda model: peer.CW(model, c=1, steps=steps, lr=0.01),
        "apgd": lambda model: peer.APGD(model, eps=eps, steps=steps),
        "square": lambda model: peer.Square(model, eps=eps, n_queries=steps),
        "auto-attack": lambda model: peer.MultiAttack(
            [
                peer.APGD(model, eps=eps, steps=steps),
                peer.APGDT(model, eps=eps, steps=steps, n_classes=few),
                peer.FAB(model, eps=eps, steps=steps, multi_targeted=True, n_classes=few),
                peer.Square(model, eps=eps, n_queries=10 * steps),
            ]
        ),
    }
    # Its DeepFool asks for the gradients of all classes: with 1,000 of them it never ends.
    if setting.classes <= 10:
        makers["deepfool"] = lambda model: peer.DeepFool(model, steps=steps, overshoot=0.02)
    if setting.attack not in makers or (setting.attack == "auto-attack" and few < 4):
        return None
    make = makers[setting.attack]
    return lambda model, images, labels: make(model)(images, labels).detach()


def of_foolbox(setting: Setting) -> Run | None:
    """Foolbox."""
    import foolbox as peer

    steps = setting.steps
    makers: dict[str, Callable[[], Any]] = {
        "fgsm": lambda: peer.attacks.LinfFastGradientAttack(random_start=False),
        "pgd": lambda: peer.attacks.LinfPGD(rel_stepsize=STEP, steps=steps, random_start=False),
        "deepfool": lambda: peer.attacks.L2DeepFoolAttack(
            steps=steps, candidates=min(10, setting.classes), overshoot=0.02
        ),
        "carlini-wagner": lambda: peer.attacks.L2CarliniWagnerAttack(
            binary_search_steps=1,
            steps=steps,
            stepsize=0.01,
            initial_const=1.0,
            abort_early=False,
        ),
    }
    if setting.attack not in makers:
        return None
    attack = makers[setting.attack]()

    def run(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        wrapped = peer.PyTorchModel(model, bounds=(0, 1), device="cpu")
        bound = {} if setting.eps is None else {"epsilon": setting.eps}
        made: Tensor = attack.run(wrapped, images, labels, **bound)
        return made.detach()

    return run


def of_art(setting: Setting) -> Run | None:
    """The Adversarial Robustness Toolbox."""
    from art.attacks import evasion as peer
    from art.estimators.classification import PyTorchClassifier

    eps, steps = setting.eps, setting.steps
    makers: dict[str, Callable[[Any, int], Any]] = {
        "fgsm": lambda model, batch: peer.FastGradientMethod(model, eps=eps, batch_size=batch),
        "pgd": lambda model, batch: peer.ProjectedGradientDescent(
            model,
            eps=eps,
            eps_step=STEP * (eps or 0),
            max_iter=steps,
            batch_size=batch,
            verbose=False,
        ),
        "deepfool": lambda model, batch: peer.DeepFool(
            model,
            max_iter=steps,
            epsilon=0.02,
            nb_grads=min(10, setting.classes),
            batch_size=batch,
            verbose=False,
        ),
        "carlini-wagner": lambda model, batch: peer.CarliniL2Method(
            model,
            binary_search_steps=1,
            max_iter=steps,
            learning_rate=0.01,
            initial_const=1.0,
            batch_size=batch,
            verbose=False,
        ),
        "apgd": lambda model, batch: peer.AutoProjectedGradientDescent(
            model,
            eps=eps,
            eps_step=2 * (eps or 0),
            max_iter=steps,
            nb_random_init=1,
            loss_type="cross_entropy",
            batch_size=batch,
            verbose=False,
        ),
        "square": lambda model, batch: peer.SquareAttack(
            model, eps=eps, max_iter=steps, nb_restarts=1, batch_size=batch, verbose=False
        ),
    }
    if setting.attack not in makers:
        return None
    make = makers[setting.attack]

    def run(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        wrapped = PyTorchClassifier(
            model,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(images.shape[1:]),
            nb_classes=setting.classes,
            clip_values=(0.0, 1.0),
            device_type="cpu",
        )
        made = make(wrapped, len(images)).generate(images.numpy(), labels.numpy())
        return torch.from_numpy(made)

    return run


def bare_loop(setting: Setting) -> Run | None:
    """The limit: forward pass and input gradient on the prepared network, and nothing around it.

    In parts of the batch as our attacks ask about, and only for attacks that are little else.
    """
    passes = {"fgsm": 1, "pgd": setting.steps, "apgd": setting.steps + 1}.get(setting.attack)
    if passes is None or setting.eps is None:
        return None
    step = setting.eps / passes

    def climb(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        attacked = images
        for _ in range(passes):
            leaf = attacked.detach().requires_grad_(True)
            loss = nn.functional.cross_entropy(model(leaf), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, leaf)
            attacked = leaf.detach() + step * gradient.sign()
        return attacked

    def run(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return torch.cat([climb(model, images[rows], labels[rows]) for rows in parts(images)])

    return run


def runs_of(setting: Setting) -> dict[str, Run]:
    """All that can run this setting here: ours, the peers that are installed, and the limit."""
    found: dict[str, Run] = {}
    makers = {"torchattacks": of_torchattacks, "foolbox": of_foolbox, "art": of_art}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, make in {"jernih": of_jernih, **makers, "limit": bare_loop}.items():
            try:
                run = make(setting)
            except ModuleNotFoundError as error:
                if name == "jernih":
                    raise
                print(f"{name} is left out: {error}")
                continue
            if run is not None:
                found[name] = run
    return found
