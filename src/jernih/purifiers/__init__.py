"""Purifiers: ``purifier(images) -> images``, one method a file."""

from jernih.purifiers.base import PURIFIERS, Purifier
from jernih.purifiers.conv_autoencoder import ConvAutoencoder
from jernih.purifiers.files import restore_purifier, save_purifier
from jernih.purifiers.identity import Identity
from jernih.purifiers.skip_vae import SkipVAE

__all__ = [
    "PURIFIERS",
    "ConvAutoencoder",
    "Identity",
    "Purifier",
    "SkipVAE",
    "restore_purifier",
    "save_purifier",
]
