"""FAB, the fast adaptive boundary attack: along the boundary, ever closer to the image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from jernih.attacks.asking import ask
from jernih.attacks.base import ATTACKS, MinimumNorm, distance
from jernih.attacks.draws import in_ball, normal
from jernih.attacks.hyperplane import nearest_boundary, way_to_plane
from jernih.attacks.losses import margin, other_classes
from jernih.types import Norm
from jernih.validate import check_choice, check_count, check_labels, check_logits, check_number

RADII: dict[Norm, float] = {"linf": 0.3, "l2": 1.0, "l1": 5.0}
"""The authors' bounds for random starts where none is given."""
LEAD = 1e-5
"""By what share of the label's lead on the clean image another class has to lead at least.

A point still nearer to the boundary could change sides by rounding alone.
"""
PUSHES = (1e-3, 1e-2)
"""How much farther out, as a share, a point goes that changes sides in a batch of another size."""


@ATTACKS.register("fab")
class FAB(MinimumNorm):
    r"""Fast adaptive boundary attack in L∞, L2 or L1, untargeted (Croce & Hein, arXiv:1907.02044).

    A minimum-norm attack. Like DeepFool it takes the model for linear near the point x, but it
    projects onto the nearest boundary within [0, 1], and keeps close to the clean image
    :math:`x_0`. With d and :math:`d_0` the shortest ways from x and :math:`x_0` to that boundary:

    .. math:: x \leftarrow \mathrm{clip}_{[0,1]}\bigl((1 - α)(x + η\,d) + α\,(x_0 + η\,d_0)\bigr),
        \quad α = \min\Bigl(\frac{\lVert d \rVert}{\lVert d \rVert + \lVert d_0 \rVert},
        α_\mathrm{max}\Bigr)

    Whenever the model is fooled, the point is kept if it is the nearest so far, and the search goes
    on from :math:`x_0 + β\,(x - x_0)`. At the end the line from the clean image to the point kept
    is searched for a nearer crossing, as if the model were linear between the nearest known points
    on either side of the boundary.

    Args:
        eps: largest perturbation that counts, in ``norm``; None for any.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        steps: number of steps of each run; each asks the model twice.
        restarts: number of runs. All but the first start at a random point, half as far away as the
            nearest point known and at most half of ``eps`` (of 0.3 in L∞, 1 in L2 and 5 in L1
            where no bound is given).
        alpha_max: the largest weight α of the clean image, in [0, 1].
        eta: η, how far to go, as a multiple of the way to the boundary, in [1, 2].
        beta: β, the share of the perturbation that is kept once the model is fooled, in [0, 1].
        final_steps: number of steps of the search at the end. The paper takes 3, the authors'
            code and AutoAttack none.
        classes: how many classes to consider, the image's own and the most likely others on the
            clean image; None for all. Models with many classes are attacked much faster with few.
        stop_early: an image leaves the search as soon as a perturbation within ``eps`` is found.
            Which images are fooled within ``eps`` stays the same; the perturbations are larger
            than need be, and so bounds below ``eps`` in a sweep are served worse.

    Raises:
        InputError: for an unknown norm, counts below one (two for classes, zero for final_steps),
            and numbers outside their ranges.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(4, 2)
        >>> layer.weight.data = torch.tensor([[0.0, 0, 0, 0], [3, 0, 4, 0]])
        >>> layer.bias.data = torch.tensor([3.0, 0])
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), layer).eval()
        >>> images, labels = torch.full((1, 1, 2, 2), 0.5), torch.tensor([1])
        >>> attack = FAB(norm="l2", steps=10)  # the boundary is 0.5 / 5 away
        >>> round(float(attack(model, images, labels).distances), 3)
        0.1
    """

    reference: ClassVar[str] = "arXiv:1907.02044"

    def __init__(
        self,
        eps: float | str | None = None,
        *,
        norm: Norm = "linf",
        steps: int = 100,
        restarts: int = 1,
        alpha_max: float = 0.1,
        eta: float = 1.05,
        beta: float = 0.9,
        final_steps: int = 3,
        classes: int | None = None,
        stop_early: bool = False,
    ) -> None:
        check_choice("norm", norm, tuple(RADII))
        self.norm = norm
        super().__init__(eps)
        self.radius = RADII[norm] if eps is None else self.eps
        self.steps = check_count("steps", steps)
        self.restarts = check_count("restarts", restarts)
        self.alpha_max = check_number("alpha_max", alpha_max, 0, 1)
        self.eta = check_number("eta", eta, 1, 2)
        self.beta = check_number("beta", beta, 0, 1)
        self.final_steps = check_count("final_steps", final_steps, 0)
        self.classes = None if classes is None else check_count("classes", classes, 2)
        self.enough = self.eps if stop_early else 0.0

    def search(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return the nearest adversarial images found; where none was found, the image itself."""
        clean = ask(model, images)
        check_labels(labels, len(labels), clean.shape[1])
        lead = -margin(clean, labels)
        best = images.clone()
        sizes = torch.where(self.fooled(clean, labels), 0, torch.full_like(lead, torch.inf))
        for rivals in self.rounds(clean, labels):
            for number in range(self.restarts):
                if not bool((sizes > self.enough).any()):
                    break
                start = images if number == 0 else self._start(images, sizes, generator)
                self._follow(model, images, labels, rivals, lead, start, best, sizes)
        found = ((sizes > 0) & sizes.isfinite()).nonzero().squeeze(1)
        if len(found) == 0:
            return best
        with torch.no_grad():
            best[found] = self._closer(
                model, images[found], labels[found], clean[found], best[found]
            )
            return self._settled(model, images, labels, best, found)

    def rounds(self, clean: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """Classes (N, R) whose boundaries to look at in each round, from the clean logits."""
        yield other_classes(clean, labels, (self.classes or clean.shape[1]) - 1)

    def _start(self, images: Tensor, sizes: Tensor, generator: torch.Generator | None) -> Tensor:
        """Random points (N, C, H, W) at half the distance of the nearest ones known."""
        linf = self.norm == "linf"
        drawn = in_ball(images, "linf", generator) if linf else normal(images, generator)
        away = distance(torch.zeros_like(drawn), drawn, self.norm).clamp_min(1e-12)
        share = sizes.clamp_max(self.radius) / away / 2
        return (images + share.view(-1, 1, 1, 1) * drawn).clamp(0, 1)

    def _follow(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        rivals: Tensor,
        lead: Tensor,
        start: Tensor,
        best: Tensor,
        sizes: Tensor,
    ) -> None:
        """One run from ``start``; writes the nearest points and their distances where smaller."""
        moved = start.clone()
        active = (sizes > self.enough).nonzero().squeeze(1)
        for _ in range(self.steps):
            if len(active) == 0:
                break
            origin, own = images[active], labels[active]
            point = self._step(model, origin, moved[active], own, rivals[active])
            ahead = margin(ask(model, point), own)
            away = distance(origin, point, self.norm)
            kept = (ahead > LEAD * lead[active]) & (away < sizes[active])
            best[active[kept]], sizes[active[kept]] = point[kept], away[kept]
            back = torch.where((ahead > 0).view(-1, 1, 1, 1), self.beta, 1.0)
            moved[active] = origin + back * (point - origin)
            active = active[sizes[active] > self.enough]

    def _step(
        self, model: nn.Module, origin: Tensor, point: Tensor, labels: Tensor, rivals: Tensor
    ) -> Tensor:
        """The next point (N, C, H, W), before it is drawn back."""
        leaf = point.detach().clone().requires_grad_(True)
        logits = check_logits(model(leaf), len(leaf))
        gaps = logits.gather(1, rivals) - logits.gather(1, labels[:, None])
        slope, gap = nearest_boundary(gaps, leaf, self.norm)
        from_origin = (slope * (point - origin)).flatten(1).sum(1) - gap
        ways = way_to_plane(
            torch.cat([point, origin]),
            torch.cat([slope, slope]),
            torch.cat([-gap, from_origin]),
            self.norm,
        )
        lengths = distance(torch.zeros_like(ways), ways, self.norm).clamp_min(1e-8)
        (near, far), (short, long) = ways.chunk(2), lengths.chunk(2)
        alpha = (short / (short + long)).clamp_max(self.alpha_max).view(-1, 1, 1, 1)
        made = (1 - alpha) * (point + self.eta * near) + alpha * (origin + self.eta * far)
        return made.clamp(0, 1)

    def _closer(
        self, model: nn.Module, images: Tensor, labels: Tensor, clean: Tensor, made: Tensor
    ) -> Tensor:
        """Nearer points on the lines from the images to the adversarial ones made of them."""
        own = labels[:, None]
        least = -LEAD * margin(clean, labels)
        low, high = torch.zeros_like(least), torch.ones_like(least)
        inside, outside, kept = clean, clean, made
        for step in range(self.final_steps):
            if step == 0:
                outside = ask(model, made)
            other = outside.scatter(1, own, -torch.inf).argmax(1, keepdim=True)
            near, far = (
                (z.gather(1, other) - z.gather(1, own)).squeeze(1) for z in (inside, outside)
            )
            # A little beyond the crossing, so that the point counts.
            share = ((2 * least - near) / (far - near).clamp_min(1e-30)).clamp(0, 1)
            at = low + share * (high - low)
            point = images + at.view(-1, 1, 1, 1) * (made - images)
            logits = ask(model, point)
            out = margin(logits, labels) > least
            kept = torch.where(out.view(-1, 1, 1, 1), point, kept)
            low, high = torch.where(out, low, at), torch.where(out, at, high)
            inside = torch.where(out[:, None], inside, logits)
            outside = torch.where(out[:, None], logits, outside)
        return kept

    def _settled(
        self, model: nn.Module, images: Tensor, labels: Tensor, made: Tensor, found: Tensor
    ) -> Tensor:
        """What was found, a little farther out where the model, asked about all at once, demurs."""
        whole = made
        for push in PUSHES:
            lost = found[~self.fooled(ask(model, whole), labels)[found]]
            if len(lost) == 0:
                return whole
            whole = whole.clone()
            whole[lost] = (images[lost] + (1 + push) * (made[lost] - images[lost])).clamp(0, 1)
        lost = found[~self.fooled(ask(model, whole), labels)[found]]
        whole[lost] = images[lost]
        return whole
