"""Data: sample, explore, modify."""

from jernih.data.images import UnreadableImage, read_image, write_png
from jernih.data.manifest import SPLITS, Manifest, Record

__all__ = ["SPLITS", "Manifest", "Record", "UnreadableImage", "read_image", "write_png"]
