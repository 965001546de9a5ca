"""Purifiers: ``purifier(images) -> images``, one method a file."""

from jernih.purifiers.base import PURIFIERS, Purifier
from jernih.purifiers.bit_depth import BitDepth
from jernih.purifiers.conv_autoencoder import ConvAutoencoder
from jernih.purifiers.deep_autoencoder import DeepAutoencoder
from jernih.purifiers.denoising_autoencoder import DenoisingAutoencoder
from jernih.purifiers.ensemble import Ensemble
from jernih.purifiers.files import (
    find_purifier,
    purifier_file,
    restore_purifier,
    save_purifier,
)
from jernih.purifiers.identity import Identity
from jernih.purifiers.jernih_r import JernihR
from jernih.purifiers.jpeg import JPEG
from jernih.purifiers.median import Median
from jernih.purifiers.pca import PCA
from jernih.purifiers.skip_vae import SkipVAE
from jernih.purifiers.total_variation import TotalVariation
from jernih.purifiers.unet import JernihM, JernihS, UNet
from jernih.purifiers.wavelet import Wavelet

__all__ = [
    "JPEG",
    "PCA",
    "PURIFIERS",
    "BitDepth",
    "ConvAutoencoder",
    "DeepAutoencoder",
    "DenoisingAutoencoder",
    "Ensemble",
    "Identity",
    "JernihM",
    "JernihR",
    "JernihS",
    "Median",
    "Purifier",
    "SkipVAE",
    "TotalVariation",
    "UNet",
    "Wavelet",
    "find_purifier",
    "purifier_file",
    "restore_purifier",
    "save_purifier",
]
