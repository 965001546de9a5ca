"""Attacked images as files: attack a data source, write what comes out, and ask the model again.

It has a room of its own because it needs all of the lower ones (data sources, classifiers, attacks,
the statistics of an assessment, the settings of a run), and a pipeline needs none of it.
"""

from jernih.attack_files.folder import AttackFolder, Row
from jernih.attack_files.formats import FORMATS, Format
from jernih.attack_files.images import Images, find_images, find_source
from jernih.attack_files.job import AttackJob, read_options
from jernih.attack_files.model import find_model, read_classes
from jernih.attack_files.run import AttackedFiles, attack_files
from jernih.attack_files.summary import lines

__all__ = [
    "FORMATS",
    "AttackFolder",
    "AttackJob",
    "AttackedFiles",
    "Format",
    "Images",
    "Row",
    "attack_files",
    "find_images",
    "find_model",
    "find_source",
    "lines",
    "read_classes",
    "read_options",
]
