"""A simulated radiograph as a DICOM file (Digital X-Ray Image Storage, DICOM PS3.3 A.26) with its geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)

from usx_phantom.dicom_common import decimal, digest, make_uid, new_dataset, save, set_pixels
from usx_phantom.xray import Radiograph

# DICOM CID 4030 and CID 4010 (SNOMED codes) of what is shown and how
LUMBAR_SPINE = ("122496007", "SCT", "Lumbar spine")
LEFT_LATERAL = ("399173006", "SCT", "left lateral")
RIGHT_LATERAL = ("399198007", "SCT", "right lateral")
KILOVOLTS = 90
MILLIAMPERES, MILLISECONDS = 100, 200


def write(radiograph: Radiograph, path: str | Path) -> None:
    """Write a radiograph as a DX file; the same radiograph gives the same bytes. Raises CannotWrite naming the file.

    The file tells what a real device tells: distances source-detector and source-isocentre, detector spacing, size
    and origin, positioner angles, view and patient orientation, exposure. The place of the device in the room it does
    not tell.
    """
    save(to_dataset(radiograph), Path(path))


def to_dataset(radiograph: Radiograph) -> Dataset:
    """The DICOM data set of a radiograph, with file meta."""
    settings = radiograph.settings
    presentation = settings.intent == "PRESENTATION"
    sop_class = DigitalXRayImageStorageForPresentation if presentation else DigitalXRayImageStorageForProcessing
    content = digest(radiograph.pixels, radiograph.xray_to_cbct)
    dataset = new_dataset(sop_class, make_uid("dx", content, repr(settings)), radiograph.seed)
    dataset.Modality = "DX"
    dataset.PresentationIntentType = f"FOR {settings.intent}"
    dataset.SeriesInstanceUID = make_uid("dx series", content)
    dataset.SeriesNumber, dataset.InstanceNumber = 2, 1
    dataset.SeriesDescription = f"Lumbar spine lateral, detector on the patient's {settings.detector_side}"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    _add_anatomy(dataset, radiograph)
    _add_geometry(dataset, radiograph)
    _add_exposure(dataset, radiograph)
    _add_grey_scale(dataset, radiograph)
    set_pixels(dataset, radiograph.pixels, settings.bits_stored)
    return dataset


def _add_anatomy(dataset: Dataset, radiograph: Radiograph) -> None:
    left = radiograph.settings.detector_side == "left"
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = Sequence([_code(LUMBAR_SPINE)])
    view = _code(LEFT_LATERAL if left else RIGHT_LATERAL)
    view.ViewModifierCodeSequence = Sequence([])
    dataset.ViewCodeSequence = Sequence([view])
    dataset.ViewPosition = "LL" if left else "RL"
    dataset.PatientOrientation = list(radiograph.patient_orientation)
    dataset.PatientPosition = "HFP"
    dataset.AcquisitionContextSequence = Sequence([])


def _add_geometry(dataset: Dataset, radiograph: Radiograph) -> None:
    """Positioner and detector (DX Positioning and DX Detector modules, PS3.3 C.8.11.4 and C.8.11.5)."""
    settings = radiograph.settings
    sid, sod, spacing = settings.source_to_detector, settings.source_to_isocentre, settings.spacing
    side = 1.0 if settings.detector_side == "left" else -1.0
    dataset.DistanceSourceToDetector = decimal(sid)
    dataset.DistanceSourceToPatient = decimal(sod)
    dataset.EstimatedRadiographicMagnificationFactor = decimal(sid / sod)
    dataset.ImagerPixelSpacing = [decimal(spacing), decimal(spacing)]
    dataset.DetectorElementSpacing = [decimal(spacing), decimal(spacing)]
    dataset.DetectorElementPhysicalSize = [decimal(spacing), decimal(spacing)]
    dataset.DetectorType = "SCINTILLATOR"
    dataset.DetectorConfiguration = "AREA"
    dataset.DetectorID = "0"
    dataset.DetectorBinning = ["1", "1"]
    # along rows of pixels and along columns last, as with all pairs of DICOM
    dataset.DetectorActiveShape = "RECTANGLE"
    dataset.DetectorActiveDimensions = [decimal(settings.rows * spacing), decimal(settings.columns * spacing)]
    dataset.DetectorActiveOrigin = ["0", "0"]
    dataset.FieldOfViewShape = "RECTANGLE"
    dataset.FieldOfViewDimensions = [round(settings.rows * spacing), round(settings.columns * spacing)]
    dataset.FieldOfViewOrigin = ["0", "0"]
    dataset.FieldOfViewRotation = "0"
    dataset.FieldOfViewHorizontalFlip = "NO"
    dataset.PositionerType = "CARM"
    # from the patient's front (0) to the left (+90): the detector's side of the central ray
    dataset.PositionerPrimaryAngle = decimal(side * 90.0 + settings.primary_angle)
    dataset.PositionerSecondaryAngle = decimal(_cranial_angle(radiograph))
    if settings.collimator is not None:
        _add_collimator(dataset, radiograph)


def _add_collimator(dataset: Dataset, radiograph: Radiograph) -> None:
    """Pixels of the collimator's edges (X-Ray Collimator module, PS3.3 C.8.7.3), counted from 1."""
    settings = radiograph.settings
    width, height = (length / settings.spacing for length in settings.collimator or ())
    dataset.CollimatorShape = "RECTANGULAR"
    dataset.CollimatorLeftVerticalEdge = round((settings.columns + 1 - width) / 2.0)
    dataset.CollimatorRightVerticalEdge = round((settings.columns + 1 + width) / 2.0)
    dataset.CollimatorUpperHorizontalEdge = round((settings.rows + 1 - height) / 2.0)
    dataset.CollimatorLowerHorizontalEdge = round((settings.rows + 1 + height) / 2.0)


def _add_exposure(dataset: Dataset, radiograph: Radiograph) -> None:
    """Tube and grid (X-Ray Generation and X-Ray Grid modules, PS3.3 C.8.7.9 and C.8.7.11)."""
    dataset.KVP = str(KILOVOLTS)
    dataset.XRayTubeCurrent, dataset.ExposureTime = MILLIAMPERES, MILLISECONDS
    dataset.XRayTubeCurrentInuA, dataset.ExposureTimeInuS = decimal(MILLIAMPERES * 1e3), decimal(MILLISECONDS * 1e3)
    dataset.Exposure = round(MILLIAMPERES * MILLISECONDS / 1000)
    dataset.ExposureInuAs = MILLIAMPERES * MILLISECONDS
    dataset.FocalSpots = decimal(radiograph.settings.focal_spot)
    dataset.Grid = ["FIXED", "PARALLEL"] if radiograph.settings.scatter < 1.5 else "NONE"


def _add_grey_scale(dataset: Dataset, radiograph: Radiograph) -> None:
    settings = radiograph.settings
    top = (1 << settings.bits_stored) - 1
    presentation = settings.intent == "PRESENTATION"
    bright_bone = presentation and settings.photometric == "MONOCHROME2"
    dataset.PhotometricInterpretation = settings.photometric
    dataset.PixelIntensityRelationship = "LOG" if presentation else "LIN"
    # +1: a larger stored value means more X-ray intensity
    dataset.PixelIntensityRelationshipSign = -1 if bright_bone else 1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    dataset.PresentationLUTShape = "IDENTITY" if settings.photometric == "MONOCHROME2" else "INVERSE"
    if presentation:
        dataset.WindowCenter, dataset.WindowWidth = decimal((top + 1) / 2.0), decimal(top + 1.0)


def _cranial_angle(radiograph: Radiograph) -> float:
    """Degrees by which the detector's side of the central ray points towards the head."""
    return float(np.degrees(np.arcsin(np.clip(radiograph.xray_to_cbct[2, 2], -1.0, 1.0))))


def _code(code: tuple[str, str, str]) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item
