"""Randomised smoothing: a radius within which no attack changes the answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.stats import binomtest, norm
from torch import Tensor, nn

from jernih.attacks.asking import AT_ONCE
from jernih.attacks.draws import streams
from jernih.validate import InputError, check_count, check_images, check_logits, check_number

ABSTAINED = -1
"""In place of a class, where the noisy answers do not allow one at the wanted confidence."""


@dataclass(frozen=True)
class Certificates:
    """What smoothing can promise for N images.

    Attributes:
        classes: the smoothed model's class for each image, int64 (N,); -1 where it abstains.
        radii: L2 radius, in units of images in [0, 1], within which that class stands, float64
            (N,); 0 where it abstains.
        counts: how many of the noisy answers named the class, int64 (N,).
        sigma: standard deviation of the noise.
        samples: noisy answers for each image that the radius goes by.
        alpha: the chance, for each image by itself, that its promise is wrong.
    """

    classes: Tensor
    radii: Tensor
    counts: Tensor
    sigma: float
    samples: int
    alpha: float


class Smoothing:
    r"""A model's majority vote under Gaussian noise (Cohen et al., arXiv:1902.02918).

    The smoothed model answers with the class c that the model f names most often for x + δ, δ drawn
    from a Gaussian of standard deviation σ in each value. A first few draws name the candidate c;
    fresh draws bound its share from below by Clopper & Pearson. Where that bound p is above ½, no
    perturbation of an L2 size below

    .. math:: R = σ\, Φ^{-1}(p)

    changes the smoothed model's answer, whoever makes it and whatever it knows; each promise
    fails with probability α at most, over the draws. With a denoiser in front, f is any
    classifier (denoised smoothing, arXiv:2003.01908).

    Args:
        model: images (N, 3, H, W) → logits (N, K), in evaluation mode. Noisy images go beyond
            [0, 1] and are not clipped.
        sigma: σ, above 0.
        candidates: draws that name the candidate.
        samples: draws that bound its share.
        alpha: α, in (0, 1).
        at_once: noisy images that the model is asked about at once; None for as many as attacks
            ask about on a CPU, and 256 on an accelerator.

    Raises:
        InputError: for a model in training mode, and numbers out of range.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(4, 2)
        >>> layer.weight.data = torch.tensor([[0.0, 0, 0, 0], [3, 0, 4, 0]])
        >>> layer.bias.data = torch.tensor([3.0, 0])
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), layer).eval()
        >>> smoothing = Smoothing(model, sigma=0.25, samples=10_000)
        >>> images = torch.full((1, 1, 2, 2), 0.7)  # the boundary is (7 * 0.7 - 3) / 5 = 0.38 away
        >>> promised = smoothing.certify(images, generator=torch.Generator().manual_seed(0))
        >>> int(promised.classes), 0.36 < float(promised.radii) < 0.38
        (1, True)
    """

    def __init__(
        self,
        model: nn.Module,
        sigma: float,
        *,
        candidates: int = 100,
        samples: int = 10_000,
        alpha: float = 0.001,
        at_once: int | None = None,
    ) -> None:
        if any(module.training for module in model.modules()):
            raise InputError("model", "evaluation mode (call model.eval())", "training mode")
        self.model = model
        if check_number("sigma", sigma, 0, 1e3) == 0:
            raise InputError("sigma", "a standard deviation above 0", sigma)
        self.sigma = sigma
        self.candidates = check_count("candidates", candidates)
        self.samples = check_count("samples", samples)
        self.alpha = check_number("alpha", alpha, 1e-12, 1 - 1e-12)
        self.at_once = None if at_once is None else check_count("at_once", at_once)

    @torch.no_grad()
    def certify(
        self,
        images: Tensor,
        *,
        generator: torch.Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Certificates:
        """Class and radius of each image; an image's result does not depend on the others.

        Args:
            images: float32 (N, 3, H, W) in [0, 1].
            generator: source of the noise.
            progress: called with images done and images in all after each of them.

        Raises:
            InputError: for images of another form, and a model that gives no logits.
        """
        images = check_images(images)
        classes = torch.full((len(images),), ABSTAINED)
        radii, counts = torch.zeros(len(images), dtype=torch.float64), torch.zeros_like(classes)
        for row, draws in enumerate(streams(len(images), generator)):
            candidate = int(self._votes(images[row], self.candidates, draws).argmax())
            count = int(self._votes(images[row], self.samples, draws)[candidate])
            counts[row] = count
            share = least_share(count, self.samples, self.alpha)
            if share > 0.5:
                classes[row], radii[row] = candidate, self.sigma * float(norm.ppf(share))
            if progress is not None:
                progress(row + 1, len(images))
        return Certificates(classes, radii, counts, self.sigma, self.samples, self.alpha)

    def _votes(self, image: Tensor, count: int, draws: torch.Generator) -> Tensor:
        """How often (K,) each class is named under noise."""
        usual = max(1, AT_ONCE // image[0].numel()) if image.device.type == "cpu" else 256
        at_once = self.at_once or usual
        votes = []
        for start in range(0, count, at_once):
            some = min(at_once, count - start)
            noise = torch.randn((some, *image.shape), generator=draws).to(image)
            logits = check_logits(self.model(image + self.sigma * noise), some)
            votes.append(torch.bincount(logits.argmax(1), minlength=logits.shape[1]))
        return torch.stack(votes).sum(0)


def least_share(count: int, samples: int, alpha: float) -> float:
    """Lower bound of a share, of which ``count`` of ``samples`` were seen, at confidence 1 - α.

    Source: Clopper & Pearson, doi:10.1093/biomet/26.4.404, one-sided.
    """
    known = binomtest(count, samples, alternative="greater")
    return float(known.proportion_ci(1 - alpha, method="exact").low)


def largest_radius(sigma: float, samples: int, alpha: float) -> float:
    """The radius that unanimous answers give: no setting with as many draws promises more."""
    share = least_share(samples, samples, alpha)
    return sigma * float(norm.ppf(share)) if share > 0.5 else math.nan
