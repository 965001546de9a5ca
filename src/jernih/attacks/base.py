"""What every attack shares: the checks before, the projection and the recheck after."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from jernih.attacks.asking import ask, parts
from jernih.attacks.draws import streams
from jernih.registry import Configured, Registry
from jernih.types import AttackResult, Needs, Norm
from jernih.validate import (
    InputError,
    check_images,
    check_labels,
    parse_eps,
)

UNBOUNDED = 1e6
"""A bound in L2 or L1 that no image of a sensible size can reach."""


class _Asked:
    """The norms of an attack that does not name them: those that its constructor takes."""

    def __get__(self, _: object, attack: type[Attack]) -> tuple[Norm, ...]:
        taken = []
        if "norm" in inspect.signature(attack).parameters:
            for norm in get_args(Norm):
                try:
                    made: Any = attack(norm=norm)  # type: ignore[call-arg]
                except InputError:
                    continue
                except TypeError:  # abstract, or an option without a default: it cannot be asked
                    break
                taken.append(made.norm)
        return tuple(taken) or (attack.norm,)


class Attack(Configured, ABC):
    """A way to make a model misclassify images within a bound on the perturbation.

    Calling the attack checks the arguments, runs the method, projects what it returns onto the
    ball and onto [0, 1], and asks the model again whether it is fooled. A subclass writes only
    :meth:`run` (and :meth:`run_sweep` where several bounds can share work).

    Args:
        eps: bound on the perturbation in the attack's norm, on the scale of images in [0, 1];
            a number or a fraction such as ``"4/255"``.
        targeted: the labels passed are classes to reach rather than the true ones.

    Attributes:
        norm: the norm of the bound; an attack for several norms sets it before the base's
            constructor runs.
        norms: the norms that the attack can be made for; found by asking the constructor where a
            subclass does not say.
        needs: what the attack has to see of the model: its ``"gradients"``, its ``"scores"`` (the
            logits), its ``"decisions"`` (the class alone), or ``"nothing"``.
        targetable: whether the attack has a form that reaches a wanted class; by default, whether
            its constructor takes ``targeted``.
        reference: the publication that describes the method.
        shares: whether the images of a batch share one perturbation. Where they do not, an image's
            result does not depend on the others in its batch.
    """

    norm: Norm = "linf"
    norms: ClassVar[tuple[Norm, ...]] = _Asked()  # type: ignore[assignment]
    needs: ClassVar[Needs] = "gradients"
    targetable: ClassVar[bool] = True
    reference: ClassVar[str]
    shares: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Note whether the class has a targeted form, where it does not say so itself."""
        super().__init_subclass__(**options)
        if "targetable" not in vars(cls):
            cls.targetable = "targeted" in inspect.signature(cls).parameters

    def __init__(self, eps: float | str = "8/255", *, targeted: bool = False) -> None:
        self.eps = self.bound(eps, "eps")
        self.targeted = targeted

    def bound(self, eps: float | str, argument: str = "epsilons") -> float:
        """Read a bound in this attack's norm.

        Raises:
            InputError: when it is no number or fraction, negative, or above 1 in L∞.
        """
        return parse_eps(eps, argument, 1.0 if self.norm == "linf" else UNBOUNDED)

    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> AttackResult:
        """Attack a batch with the bound that the attack was made with.

        Args:
            model: images in [0, 1] → logits (N, K), in evaluation mode. Its weights, mode and
                gradients stay as they are.
            images: float32 (N, C, H, W) in [0, 1].
            labels: int64 (N,): the true classes, or the ones to reach when targeted.
            generator: source of randomness for attacks that use any.

        Raises:
            InputError: for arguments of another form, and for a model in training mode.
        """
        return self.sweep(model, images, labels, [self.eps], generator=generator)[0]

    def sweep(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        epsilons: Sequence[float | str],
        *,
        generator: torch.Generator | None = None,
    ) -> list[AttackResult]:
        """Attack a batch once for each bound in ``epsilons``; arguments as for a call.

        Attacks whose direction does not depend on the bound share one gradient over all bounds.
        """
        attacked = self.perturb(model, images, labels, epsilons, generator=generator)
        bounds = [self.bound(eps) for eps in epsilons]
        return [
            self._recheck(model, images, made, labels, eps)
            for made, eps in zip(attacked, bounds, strict=True)
        ]

    def perturb(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        epsilons: Sequence[float | str],
        *,
        generator: torch.Generator | None = None,
    ) -> list[Tensor]:
        """Like :meth:`sweep`, but return the attacked images alone, without asking the model again.

        For training, where the outcome of each attack is of no interest.
        """
        images = check_images(images)
        check_model(model)
        if not epsilons:
            raise InputError("epsilons", "at least one bound", "none")
        bounds = [self.bound(eps) for eps in epsilons]
        check_labels(labels, len(images))
        with torch.enable_grad():
            made = self.run_sweep(model, images, labels, bounds, generator)
        return [
            self._confine(images, raw.detach(), eps) for raw, eps in zip(made, bounds, strict=True)
        ]

    def fooled(self, logits: Tensor, labels: Tensor, confidence: float = 0.0) -> Tensor:
        """Which images (N,) have reached the goal: another class, or the wanted one when targeted.

        With a ``confidence`` the class has to be ahead of the label's logit (of every other logit,
        when targeted) by more than that.
        """
        if confidence:
            ahead = functional.one_hot(labels, logits.shape[1]) * confidence
            logits = logits - ahead if self.targeted else logits + ahead
        predictions = logits.argmax(1)
        return predictions == labels if self.targeted else predictions != labels

    @abstractmethod
    def run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        eps: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return attacked images for one bound; arguments are already checked."""

    def run_sweep(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        epsilons: Sequence[float],
        generator: torch.Generator | None,
    ) -> list[Tensor]:
        """Return attacked images for each bound; override where bounds can share work."""
        return [self.run(model, images, labels, eps, generator) for eps in epsilons]

    def _confine(self, images: Tensor, attacked: Tensor, eps: float) -> Tensor:
        if attacked.shape != images.shape or not bool(torch.isfinite(attacked).all()):
            raise RuntimeError(f"attack {self.name!r} returned a wrong shape or NaN")
        return (images + project(attacked - images, self.norm, eps)).clamp(0, 1)

    def _recheck(
        self, model: nn.Module, images: Tensor, attacked: Tensor, labels: Tensor, eps: float
    ) -> AttackResult:
        logits = ask(model, attacked)
        check_labels(labels, len(images), logits.shape[1])
        return AttackResult(
            images=attacked,
            logits=logits,
            success=self.fooled(logits, labels),
            distances=distance(images, attacked, self.norm),
            norm=self.norm,
            eps=eps,
        )


class MinimumNorm(Attack):
    """An attack that looks for the smallest perturbation that fools the model.

    It searches once, without a bound; with a bound, an image counts as fooled when the perturbation
    found for it is no larger. Others stay clean, and so does an image that the model gets wrong as
    it is: nothing is smaller than no perturbation. A subclass writes :meth:`search`.
    """

    def __init__(self, eps: float | str | None = None, *, targeted: bool = False) -> None:
        largest = 1.0 if self.norm == "linf" else UNBOUNDED
        super().__init__(largest if eps is None else eps, targeted=targeted)

    @abstractmethod
    def search(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return the nearest adversarial images found; where none was found, the image itself."""

    def run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        eps: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return attacked images for one bound."""
        return self.run_sweep(model, images, labels, [eps], generator)[0]

    def run_sweep(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        epsilons: Sequence[float],
        generator: torch.Generator | None,
    ) -> list[Tensor]:
        """Return attacked images for each bound, from one search."""
        batches = parts(images)
        found = torch.cat(
            [
                self.search(model, images[rows], labels[rows], own)
                for rows, own in zip(batches, streams(len(batches), generator), strict=True)
            ]
        )
        found = found.detach().clamp(0, 1)
        sizes = distance(images, found, self.norm).view(-1, 1, 1, 1)
        # A perturbation may exceed its own size by rounding alone.
        return [torch.where(sizes <= eps * (1 + 1e-6), found, images) for eps in epsilons]

    def _confine(self, images: Tensor, attacked: Tensor, eps: float) -> Tensor:
        # What was found lies a hair beyond a decision boundary: not a bit of it may change.
        confined = super()._confine(images, attacked, eps)
        inside = distance(images, attacked, self.norm) <= eps
        return torch.where(inside.view(-1, 1, 1, 1), attacked, confined)


def check_model(model: nn.Module) -> None:
    """Check that ``model`` can be attacked.

    Raises:
        InputError: for something else than a module, and for a model in training mode.
    """
    if not isinstance(model, nn.Module):
        raise InputError("model", "a torch.nn.Module", f"a {type(model).__name__}")
    if any(module.training for module in model.modules()):
        raise InputError("model", "evaluation mode (call model.eval())", "training mode")


def distance(images: Tensor, others: Tensor, norm: Norm) -> Tensor:
    """Distance of each pair of images (N, C, H, W) in ``norm``, as a tensor (N,)."""
    order = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}[norm]
    size: Tensor = torch.linalg.vector_norm((others - images).flatten(1), ord=order, dim=1)
    return size


def unit(ways: Tensor) -> Tensor:
    """Each of ``ways`` (N, C, H, W) over its length in L2; zero stays zero."""
    flat = ways.flatten(1)
    # Over the largest first: squares of the gradients of a sure model underflow.
    flat = flat / flat.abs().amax(1, keepdim=True).clamp_min(1e-38)
    size: Tensor = torch.linalg.vector_norm(flat, dim=1, keepdim=True).clamp_min(1e-12)
    return (flat / size).view_as(ways)


def project(delta: Tensor, norm: Norm, eps: float) -> Tensor:
    """The nearest perturbations (N, C, H, W) whose size in ``norm`` is at most ``eps``.

    The L1 projection follows Duchi et al., "Efficient Projections onto the l1-Ball" (ICML 2008).
    """
    if norm == "linf":
        return delta.clamp(-eps, eps)
    flat = delta.flatten(1)
    if norm == "l2":
        size: Tensor = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
        shrink = (eps / size.clamp_min(1e-12)).clamp_max(1)
        return (flat * shrink).view_as(delta)
    magnitude = flat.abs()
    ordered = magnitude.sort(dim=1, descending=True).values
    excess = ordered.cumsum(1) - eps
    rank = torch.arange(1, flat.shape[1] + 1, device=flat.device)
    last = ((ordered - excess / rank) > 0).sum(1, keepdim=True).clamp_min(1)
    cut = (excess.gather(1, last - 1) / last).clamp_min(0)
    inside = magnitude.sum(1, keepdim=True) <= eps
    shrunk = flat.sign() * (magnitude - cut).clamp_min(0)
    return torch.where(inside, flat, shrunk).view_as(delta)


ATTACKS: Registry[Attack] = Registry("attack")
"""All attacks by name."""
