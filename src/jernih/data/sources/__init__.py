"""Data sources: where images and labels come from, one source a file."""

from jernih.data.sources.base import SOURCES, DataSource, Item
from jernih.data.sources.folder import Folder
from jernih.data.sources.imagenet import ImageNet
from jernih.data.sources.phantom import Phantom

__all__ = ["SOURCES", "DataSource", "Folder", "ImageNet", "Item", "Phantom"]
