"""Figures of an assessment, drawn without any global plotting state."""

from jernih.assess.figures.catalogue import Plot, catalogue, threat_key, write_figures
from jernih.assess.figures.training import training_curves, write_training_curves

__all__ = [
    "Plot",
    "catalogue",
    "threat_key",
    "training_curves",
    "write_figures",
    "write_training_curves",
]
