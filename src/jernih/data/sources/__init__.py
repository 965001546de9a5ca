"""Data sources: where images and labels come from, one source a file."""

from jernih.data.sources.base import SOURCES, DataSource, Item
from jernih.data.sources.dicom import Dicom
from jernih.data.sources.folder import Folder
from jernih.data.sources.huggingface import HuggingFace
from jernih.data.sources.imagenet import ImageNet
from jernih.data.sources.phantom import Phantom
from jernih.data.sources.table import Table

__all__ = [
    "SOURCES",
    "DataSource",
    "Dicom",
    "Folder",
    "HuggingFace",
    "ImageNet",
    "Item",
    "Phantom",
    "Table",
]
