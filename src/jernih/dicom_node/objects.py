"""What the node makes of an image: a Structured Report, and the restored image."""

from __future__ import annotations

import copy
import datetime
import hashlib
import json
import uuid
from typing import Any

import highdicom
import numpy as np
from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from jernih import __version__
from jernih.answer import Answer

SCHEME = "99JERNIH"
"""Designator of codes that the standard lacks; local schemes begin with 99 (PS3.16, 8.2)."""
MANUFACTURER = "Jernih"
NOTE = "Computed; not a diagnosis."


def uid_of(*parts: str) -> str:
    """A UID that follows from what it names: made again, an object is the same object."""
    # The arc for UUIDs (PS3.5, B.2), with those that follow from names (RFC 9562, version 5).
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(['jernih', *parts])).int}"


def restored_image(source: Dataset, answer: Answer, model: str) -> Dataset:
    """The image that the classifier saw, as a derived Secondary Capture.

    Args:
        source: the instance that it was made of.
        answer: the model's answer.
        model: what identifies the model and its purifier, in a few words.
    """
    grey = (answer.restored.mean(0) * 255).round().clamp(0, 255).numpy().astype(np.uint8)
    # Older senders leave out what highdicom takes for granted.
    made: Dataset = highdicom.sc.SCImage.from_ref_dataset(
        ref_dataset=_complete(source),
        pixel_array=grey,
        photometric_interpretation="MONOCHROME2",
        bits_allocated=8,
        coordinate_system="PATIENT",
        series_instance_uid=uid_of("series", str(source.StudyInstanceUID), model),
        series_number=9201,
        sop_instance_uid=uid_of("image", str(source.SOPInstanceUID), model),
        instance_number=1,
        manufacturer=MANUFACTURER,
        patient_orientation=tuple(source.get("PatientOrientation") or ("L", "F")),
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.ConversionType = "WSD"
    made.Modality = source.get("Modality", "OT")
    made.SeriesDescription = "Restored before classification"
    made.DerivationDescription = f"Restored by {model}; {NOTE}"[:1024]
    made.BurnedInAnnotation = "NO"
    made.SoftwareVersions = __version__
    made.SourceImageSequence = [_reference(source)]
    return made


def report(source: Dataset, answer: Answer, model: str) -> Dataset:
    """A measurement report (TID 1500) with label, probability and suspicion.

    Args:
        source: the instance that it is about.
        answer: the model's answer.
        model: what identifies the model and its purifier, in a few words.
    """
    source = _complete(source)
    concept = sr.CodedConcept
    label = "rejected" if answer.action == "rejected" else answer.label
    evaluations = [
        sr.QualitativeEvaluation(
            name=concept("class", SCHEME, "Class found"),
            value=concept(_code(f"class {label}"), SCHEME, label[:64]),
        ),
        sr.QualitativeEvaluation(
            name=concept("action", SCHEME, "What was classified"),
            value=concept(_code(answer.action), SCHEME, f"image {answer.action}"),
        ),
        sr.QualitativeEvaluation(
            name=concept("verdict", SCHEME, "Suspicion of an attack"),
            value=concept(_code(_verdict(answer)), SCHEME, _verdict(answer)),
        ),
    ]
    measurements = [
        sr.Measurement(
            name=concept(_code(f"probability {name}"), SCHEME, f"Probability of {name}"[:64]),
            value=round(share, 6),
            unit=codes.UCUM.NoUnits,
        )
        for name, share in _likeliest(answer)
    ]
    if answer.suspicion is not None:
        measurements.append(
            sr.Measurement(
                name=concept("suspicion", SCHEME, "Suspicion score"),
                value=float(f"{answer.suspicion:.6g}"),
                unit=codes.UCUM.NoUnits,
            )
        )
    if answer.threshold is not None:
        measurements.append(
            sr.Measurement(
                name=concept("threshold", SCHEME, "Suspicion threshold"),
                value=float(f"{answer.threshold:.6g}"),
                unit=codes.UCUM.NoUnits,
            )
        )
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=uid_of("tracking", str(source.SOPInstanceUID), model), identifier="whole image"
        ),
        source_images=[
            sr.SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID)
        ],
        algorithm_id=sr.AlgorithmIdentification(
            name=model[:64], version=__version__, parameters=[NOTE]
        ),
        measurements=measurements,
        qualitative_evaluations=evaluations,
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(
                observer_type=codes.DCM.Device,
                observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                    uid=uid_of("device", model), name="Jernih", manufacturer_name=MANUFACTURER
                ),
            )
        ),
        procedure_reported=Code("classification", SCHEME, "Image classification"),
        imaging_measurements=[group],
    )
    made: Dataset = sr.ComprehensiveSR(
        evidence=[source],
        content=content,
        series_instance_uid=uid_of("reports", str(source.StudyInstanceUID), model),
        series_number=9200,
        sop_instance_uid=uid_of("report", str(source.SOPInstanceUID), model),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
    )
    made.SeriesDescription = "Classification; not a diagnosis"
    made.SoftwareVersions = __version__
    return made


def _likeliest(answer: Answer, most: int = 5) -> list[tuple[str, float]]:
    return sorted(answer.probabilities.items(), key=lambda item: -item[1])[:most]


def _verdict(answer: Answer) -> str:
    return {True: "suspicious", False: "not suspicious", None: "not examined"}[answer.flagged]


def _code(text: str) -> str:
    """A code value of at most 16 characters (PS3.3, 8.1) that follows from a text."""
    if len(text) <= 16:
        return text
    return text[:7] + "-" + hashlib.sha256(text.encode()).hexdigest()[:8]


def _complete(source: Dataset) -> Dataset:
    """The source with those attributes of patient and study that may be empty, but have to be."""
    made = copy.deepcopy(source)
    for name in (
        "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID",
        "AccessionNumber", "StudyDate", "StudyTime", "ReferringPhysicianName",
    ):  # fmt: skip
        if name not in made:
            setattr(made, name, "")
    return made


def _reference(source: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    return item


def stamped(made: Dataset, moment: datetime.datetime) -> Dataset:
    """An object with a moment of making that is told to it."""
    for name in ("ContentDate", "InstanceCreationDate", "SeriesDate"):
        if name in made:
            setattr(made, name, moment.date())
    for name in ("ContentTime", "InstanceCreationTime", "SeriesTime"):
        if name in made:
            setattr(made, name, moment.time().replace(microsecond=0))
    return made


def checksum(answerer: Any) -> str:
    """What tells one model from another: a hash of the weights of classifier and purifier."""
    digest = hashlib.sha256()
    for name, value in sorted(answerer.defended.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
