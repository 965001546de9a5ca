"""What is looked at before an instance is acknowledged, and the status for what is refused."""

from __future__ import annotations

import io
from dataclasses import dataclass

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    JPEG2000,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from jernih.dicom_node.settings import NodeSettings

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
OTHER_CLASS = 0xA900
NOT_UNDERSTOOD = 0xC000
KNOWN_OTHERWISE = 0xC101
"""Statuses of C-STORE (PS3.4, B.2.3); those from 0xC000 on are "cannot understand"."""


CLASSES = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)
"""SOP classes that are taken."""
_SYNTAXES = (
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1, JPEGLossless, JPEG2000Lossless,
    JPEG2000, JPEGLSLossless, RLELossless, JPEGBaseline8Bit,
)  # fmt: skip


def transfer_syntaxes() -> list[str]:
    """Transfer syntaxes that this installation can decode; no others are accepted."""
    found = []
    for syntax in _SYNTAXES:
        if not syntax.is_compressed or get_decoder(syntax).is_available:
            found.append(str(syntax))
    return found


@dataclass(frozen=True)
class Refusal:
    """Why an instance is not taken.

    Attributes:
        status: the status for its sender.
        reason: the comment beside it, at most 64 characters, without anything of the patient.
    """

    status: int
    reason: str


def refusal_of(content: bytes, sop_class: str, uid: str, settings: NodeSettings) -> Refusal | None:
    """Why an instance cannot be worked on, as far as its header tells; None if it can.

    Args:
        content: the instance as a DICOM file.
        sop_class: the SOP class that the sender said it is of.
        uid: the SOP instance UID that the sender said.
        settings: the node's limits.
    """
    if len(content) > settings.max_bytes:
        return Refusal(OUT_OF_RESOURCES, "the instance is larger than this node takes")
    try:
        header = dcmread(io.BytesIO(content), specific_tags=[
            "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "Rows", "Columns",
            "NumberOfFrames", "PixelData", "PhotometricInterpretation",
        ])  # fmt: skip
        frames = int(header.get("NumberOfFrames") or 1)
        sides = int(header.get("Rows") or 0) * int(header.get("Columns") or 0)
    except (
        InvalidDicomError,
        ValueError,
        TypeError,
        KeyError,
        EOFError,
        OSError,
        AttributeError,
        RecursionError,
    ):
        return Refusal(NOT_UNDERSTOOD, "the data set cannot be read")
    if str(header.get("SOPClassUID")) != sop_class:
        return Refusal(OTHER_CLASS, "the data set is of another SOP class")
    if str(header.get("SOPInstanceUID")) != uid:
        return Refusal(OTHER_CLASS, "the data set has another SOP instance UID")
    if not header.get("StudyInstanceUID"):
        return Refusal(OTHER_CLASS, "the data set names no study")
    if "PixelData" not in header or not sides:
        return Refusal(OTHER_CLASS, "the data set has no image")
    if frames != 1:
        return Refusal(NOT_UNDERSTOOD, "several frames; one is expected")
    return None
