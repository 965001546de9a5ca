"""Promises that hold against every attack: radii certified by randomised smoothing."""

from jernih.certify.run import (
    CertifiedAccuracy,
    CertifiedImage,
    CertifyPlan,
    certify,
    draw_certified,
)
from jernih.certify.smoothing import ABSTAINED, Certificates, Smoothing, largest_radius, least_share

__all__ = [
    "ABSTAINED",
    "Certificates",
    "CertifiedAccuracy",
    "CertifiedImage",
    "CertifyPlan",
    "Smoothing",
    "certify",
    "draw_certified",
    "largest_radius",
    "least_share",
]
