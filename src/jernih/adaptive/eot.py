"""Expectation over transformation: the mean answer of a random defence."""

from __future__ import annotations

import inspect
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jernih.attacks.draws import source
from jernih.randomness import seeded
from jernih.validate import InputError, check_choice, check_count, check_logits

Average = Literal["logits", "probabilities"]


class Expectation(nn.Module):
    r"""The mean answer of a random model over several draws, and with it the mean gradient.

    One draw's gradient says how to fool that draw, which the next does not repeat; an attacker
    climbs the mean instead (Athalye et al., arXiv:1707.07397 and arXiv:1802.00420). What is
    averaged matters where a loss follows. With draws t and logits z:

    * ``"logits"``: :math:`\frac1S \sum_t z(x; t)`. Their gradient is exactly the mean of the
      draws' gradients, and losses on differences of logits do not saturate.
    * ``"probabilities"``: :math:`\log \frac1S \sum_t \mathrm{softmax}\, z(x; t)`, whose softmax is
      the mean probability and whose greatest entry the answer of a vote that weighs certainty.
      Draws that are sure of themselves count for less in the gradient.

    Every call takes new draws, so a result's outcome, too, is judged on draws that the attack has
    not seen. The draws come from a seed each, taken from ``generator``: a model whose
    ``forward`` takes a ``generator`` gets one of its own, any other is run under that seed of
    torch's own random numbers, which are put back afterwards. A model that draws elsewhere (numpy,
    Python) is not repeatable, and not fit for ``recompute``.

    Args:
        model: images → logits (N, K), random.
        samples: number of draws S; 20 is usual.
        average: what to average.
        at_once: draws stacked in one batch, of N times as many images. Faster for small images,
            but a model that draws once for a whole batch then has that many fewer draws.
        recompute: keep no draw's intermediate values for the backward pass, but compute them again:
            the memory of ``at_once`` draws instead of all, for a third more work.
        generator: source of the draws' seeds; None for one seeded by the system.

    Raises:
        InputError: for counts below one or an unknown average.

    Example:
        >>> import torch
        >>> from jernih.randomness import generator
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
        >>> mean = Expectation(model, samples=4, generator=generator(0))
        >>> images = torch.rand(2, 3, 2, 2)
        >>> torch.allclose(mean(images), model(images))
        True
    """

    def __init__(
        self,
        model: nn.Module,
        samples: int = 20,
        *,
        average: Average = "logits",
        at_once: int = 1,
        recompute: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise InputError("model", "a torch.nn.Module", f"a {type(model).__name__}")
        self.model = model
        self.samples = check_count("samples", samples)
        check_choice("average", average, ("logits", "probabilities"))
        self.average = average
        self.at_once = min(check_count("at_once", at_once), samples)
        self.recompute = recompute
        self.generator = source(generator)
        self.training = model.training
        self._hands_over = "generator" in inspect.signature(model.forward).parameters

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean logits, or the logarithm of the mean probabilities, (N, K)."""
        draws = []
        for start in range(0, self.samples, self.at_once):
            count = min(self.at_once, self.samples - start)
            seed = int(torch.randint(2**62, (), generator=self.generator))
            if self.recompute and torch.is_grad_enabled():
                # The seed repeats the draw; the state of torch's generator need not be kept.
                drawn = checkpoint(
                    self._draw, images, count, seed, use_reentrant=False, preserve_rng_state=False
                )
            else:
                drawn = self._draw(images, count, seed)
            draws.append(drawn)
        stacked = torch.cat(draws)
        if self.average == "logits":
            return stacked.mean(0)
        return stacked.log_softmax(2).logsumexp(0) - math.log(self.samples)

    def _draw(self, images: Tensor, count: int, seed: int) -> Tensor:
        """Logits (count, N, K) of so many draws."""
        batch = images if count == 1 else images.repeat(count, 1, 1, 1)
        if self._hands_over:
            logits = self.model(batch, generator=torch.Generator().manual_seed(seed))
        else:
            with seeded(seed):
                logits = self.model(batch)
        return check_logits(logits, len(batch)).view(count, len(images), -1)
