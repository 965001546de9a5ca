"""Backward pass differentiable approximation: a step's output with another step's gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from jernih.purifiers.base import straight_through
from jernih.validate import InputError


class BPDA(nn.Module):
    r"""A step of a defence as it is forwards, and as its surrogate backwards.

    For steps g whose gradient is absent or useless, such as rounding or a codec (Athalye et al.,
    arXiv:1802.00420). With a differentiable s(x) ≈ g(x):

    .. math:: \text{forwards } g(x), \qquad \text{backwards } ∇_x\, s(x)

    A step that is differentiable already had better be attacked through its own gradient; this is
    then a second attack, not a replacement.

    Args:
        step: images → images; its own gradient is not asked for.
        surrogate: images → images of the step's output shape, differentiable, such as a network
            trained to imitate the step; None for the identity.

    Raises:
        InputError: when called, for a surrogate whose output has another shape than the step's.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> model = torch.nn.Sequential(BPDA(torch.round), network).eval()
        >>> images = torch.rand(2, 3, 2, 2, requires_grad=True)
        >>> (gradient,) = torch.autograd.grad(model(images)[:, 0].sum(), images)
        >>> torch.equal(gradient[0].flatten(), network[1].weight[0])
        True
    """

    def __init__(
        self,
        step: Callable[[Tensor], Tensor],
        surrogate: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.step = step
        self.surrogate = surrogate

    def forward(self, images: Tensor) -> Tensor:
        """Return the step's output, with the surrogate's gradient."""
        if not torch.is_grad_enabled():
            return self.step(images)
        stand_in = images if self.surrogate is None else self.surrogate(images)

        def step(_: Tensor) -> Tensor:
            output = self.step(images.detach())
            if output.shape != stand_in.shape:
                raise InputError(
                    "surrogate",
                    f"the step's output shape {tuple(output.shape)}",
                    tuple(stand_in.shape),
                )
            return output

        return straight_through(step, stand_in)
