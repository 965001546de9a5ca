"""Grad-CAM overlays of an assessment's examples."""

from __future__ import annotations

from pathlib import Path

import torch

from jernih.assess import Assessment
from jernih.assess.figures import threat_key
from jernih.assess.figures.pixels import example_rows, observations_of, place_of
from jernih.assess.figures.saliency import SaliencyRow, draw_important_areas
from jernih.assess.figures.style import save_figure
from jernih.assess.saliency import important_areas
from jernih.assess.words import format_threat
from jernih.classifiers import Classifier
from jernih.validate import InputError


def draw_areas(classifier: Classifier, assessment: Assessment, folder: Path) -> dict[str, Path]:
    """Draw the areas that mattered in the examples of each threat model; PNG files by caption.

    A classifier without feature maps has no such areas, and gives no figures.
    """
    seen = observations_of(assessment)
    drawn = {}
    for threat in assessment.threats:
        place = place_of(assessment, threat)
        rows = []
        for case, position, images in example_rows(assessment, threat):
            label = int(seen["label"][position])
            answers = [
                (int(seen[f"{kind}_pred"][at][position]), float(seen[f"{kind}_conf"][at][position]))
                for kind, at in (("clean", ...), ("attacked", place), ("restored", place))
            ]
            shown = torch.from_numpy(images).to(classifier.mean.device)
            predicted = torch.tensor([answer for answer, _ in answers], device=shown.device)
            try:
                maps = important_areas(classifier, shown, predicted)
            except InputError:
                return {}
            rows.append(
                SaliencyRow(
                    case,
                    assessment.classes[label],
                    images,
                    maps.cpu().numpy(),
                    tuple((assessment.classes[i], c, i == label) for i, c in answers),
                )
            )
        caption = f"Important areas ({format_threat(threat, assessment.attack)}, examples)"
        file = folder / f"{threat_key(threat)}-areas.png"
        drawn[caption] = save_figure(draw_important_areas(rows, caption), file)
    return drawn
