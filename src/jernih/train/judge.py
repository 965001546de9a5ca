"""What a purifier's features are held against while it learns to recognise."""

from __future__ import annotations

from torch import Tensor, nn

from jernih.purifiers import Purifier


class Judge(nn.Module):
    """Tells the class of an image by a purifier's features, with a linear layer of its own."""

    def __init__(self, purifier: Purifier, classes: int) -> None:
        super().__init__()
        self.purifier = [purifier]  # in a list: trained as the task's model, not again as a part
        self.layer = nn.Linear(purifier.feature_count, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, 3, H, W)."""
        logits: Tensor = self.layer(self.purifier[0].features(images))
        return logits
