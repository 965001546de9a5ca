"""A variational autoencoder with skip connections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from jernih.purifiers.base import PURIFIERS, Purifier
from jernih.validate import InputError, check_number


@PURIFIERS.register("skip-vae")
class SkipVAE(Purifier):
    r"""Variational autoencoder whose decoder also sees the encoder's feature maps.

    Convolutions with max pooling between them lead to a latent normal distribution; the decoder
    goes up by transposed convolutions and joins the encoder's maps of equal size. The defaults, at
    224 px, give 154,748,003 parameters, nearly all of them in the three dense layers. Trained with
    the mean squared error to the clean image plus a weighted Kullback–Leibler term:

    .. math:: \mathrm{MSE}(\hat x, x) + β \, D_{KL}\bigl(N(μ, σ^2) \,\|\, N(0, 1)\bigr)

    Training samples the latent; evaluation takes its mean, so that the output is a function of
    the input. Source of the latent model: Kingma & Welling, arXiv:1312.6114.

    Args:
        image_size: side of the (square) images in pixels, a multiple of 4.
        widths: channels of the three encoder convolutions.
        latent: dimensions of the latent distribution.
        beta: weight β of the Kullback–Leibler term per pixel; 0 leaves the squared error alone.

    Raises:
        InputError: for sizes out of range; when called, for images of another size.

    Example:
        >>> import torch
        >>> purifier = SkipVAE(image_size=32, widths=(4, 8, 8), latent=16).eval()
        >>> purifier(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 3, 32, 32])
    """

    reference: ClassVar[str] = "arXiv:1312.6114"

    def __init__(
        self,
        image_size: int = 224,
        widths: Sequence[int] = (32, 64, 128),
        latent: int = 128,
        beta: float = 0.0,
    ) -> None:
        super().__init__()
        if image_size < 4 or image_size % 4:
            raise InputError("image_size", "a positive multiple of 4", image_size)
        if len(widths) != 3 or min(widths) < 1 or latent < 1:
            raise InputError(
                "widths and latent",
                "three positive widths, latent of at least 1",
                (tuple(widths), latent),
            )
        self.beta = check_number("beta", beta, 0, 1e6)
        self.image_size = image_size
        first, second, third = widths
        self.bottom = (third, image_size // 4, image_size // 4)
        flat = third * (image_size // 4) ** 2
        self.encode1 = nn.Conv2d(3, first, 3, padding=1)
        self.encode2 = nn.Conv2d(first, second, 3, padding=1)
        self.encode3 = nn.Conv2d(second, third, 3, padding=1)
        self.mean = nn.Linear(flat, latent)
        self.log_variance = nn.Linear(flat, latent)
        self.expand = nn.Linear(latent, flat)
        self.decode2 = _doubling(third, second)
        self.decode1 = _doubling(2 * second, first)
        self.output = nn.Conv2d(2 * first, 3, 3, padding=1)

    def restore(self, images: Tensor) -> Tensor:
        """Return the reconstruction from the mean of the latent distribution."""
        top, middle, mean, _ = self._encode(images)
        return self._decode(top, middle, mean)

    def loss(
        self, attacked: Tensor, clean: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Mean squared error of a sampled reconstruction plus β times the KL term per pixel."""
        top, middle, mean, log_variance = self._encode(attacked)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        restored = self._decode(top, middle, mean + noise * (0.5 * log_variance).exp())
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return functional.mse_loss(restored, clean) + self.beta * divergence / clean[0].numel()

    @torch.no_grad()
    def compressed(self, latent: int, batches: Iterable[Tensor]) -> SkipVAE:
        """The same autoencoder with a smaller latent space, without training.

        The latent means of the given images are projected on their ``latent`` principal
        directions, which the two dense layers then map from and to. With as many directions as the
        latent space has, the reconstructions stay the same.

        Args:
            latent: dimensions to keep.
            batches: images (N, 3, H, W), more than ``latent`` in all.

        Raises:
            InputError: for too few images or more dimensions than there are.
        """
        means = torch.cat([self._encode(images)[2] for images in batches]).double()
        if not 0 < latent <= min(means.shape[1], len(means) - 1):
            raise InputError(
                "latent", f"1 to {means.shape[1]}, and fewer than the images", (latent, len(means))
            )
        centre = means.mean(0)
        directions = torch.linalg.svd(means - centre, full_matrices=False).Vh[:latent]
        with torch.device("meta"):
            options = {**self.options, "latent": latent}
            small = type(self)(**options)
        small.to_empty(device=centre.device)
        state = self.state_dict()
        weight, bias = state["mean.weight"].double(), state["mean.bias"].double()
        state["mean.weight"] = directions @ weight
        state["mean.bias"] = directions @ (bias - centre)
        outwards = state["expand.weight"].double()
        state["expand.weight"] = outwards @ directions.T
        state["expand.bias"] = state["expand.bias"].double() + outwards @ centre
        # Variances serve training alone, and mix under a rotation; the new ones start afresh.
        state["log_variance.weight"] = torch.zeros_like(state["mean.weight"])
        state["log_variance.bias"] = torch.zeros(latent)
        small.load_state_dict({name: value.float() for name, value in state.items()})
        return small.train(self.training)

    def _encode(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if tuple(images.shape[1:]) != (3, self.image_size, self.image_size):
            wanted = f"shape (N, 3, {self.image_size}, {self.image_size})"
            raise InputError("images", wanted, tuple(images.shape))
        top = functional.relu(self.encode1(images))
        middle = functional.relu(self.encode2(functional.max_pool2d(top, 2)))
        bottom = functional.relu(self.encode3(functional.max_pool2d(middle, 2))).flatten(1)
        return top, middle, self.mean(bottom), self.log_variance(bottom)

    def _decode(self, top: Tensor, middle: Tensor, latent: Tensor) -> Tensor:
        bottom = functional.relu(self.expand(latent)).reshape(-1, *self.bottom)
        lower = torch.cat([functional.relu(self.decode2(bottom)), middle], dim=1)
        upper = torch.cat([functional.relu(self.decode1(lower)), top], dim=1)
        return torch.sigmoid(self.output(upper))


def _doubling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """A 3×3 transposed convolution that doubles the resolution."""
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
