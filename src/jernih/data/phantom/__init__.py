"""Synthetic frontal chest radiographs: drawn anatomy, projected as an X-ray machine would.

They let everything run without patients' data. Whoever looks at the images should know that they
are drawings: nothing measured on them says anything about medicine.
"""

from jernih.data.phantom.patient import LABELS, Label, Lesion, Patient
from jernih.data.phantom.radiograph import expose, render

__all__ = ["LABELS", "Label", "Lesion", "Patient", "expose", "render"]
