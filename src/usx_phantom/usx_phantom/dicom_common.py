"""What the phantom's DICOM files share: file meta, patient, study, and unique identifiers that follow from content."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from usx_common.errors import UsxError

IMPLEMENTATION_UID = UID("2.25.302861493870261740389463026843702853301")
IMPLEMENTATION_NAME = "USX_PHANTOM_1"
STUDY_DATE = "20260101"  # fixed: the same phantom makes the same bytes on any day
STUDY_TIME = "120000"
NAMESPACE = uuid.UUID("e4a5b7c6-1f5f-4b0e-9b0e-5d2f7a5c1c11")


class CannotWrite(UsxError):
    """A DICOM file that cannot be written."""


def make_uid(*parts: object) -> UID:
    """UID below 2.25 (ITU-T X.667) that depends on nothing but `parts`: the same parts, the same UID."""
    text = "/".join(str(part) for part in parts)
    return UID(f"2.25.{uuid.uuid5(NAMESPACE, text).int}")


def digest(*arrays: NDArray) -> str:
    """Hexadecimal SHA-256 of shapes, types and bytes of arrays; part of a UID, so that other pixels get another."""
    total = hashlib.sha256()
    for array in arrays:
        contiguous = np.ascontiguousarray(array)
        total.update(f"{contiguous.shape}{contiguous.dtype.str}".encode())
        total.update(contiguous.tobytes())
    return total.hexdigest()


def new_dataset(sop_class: UID, instance: UID, seed: int) -> Dataset:
    """Data set with file meta and the patient, study, equipment and SOP common attributes of phantom `seed`."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = IMPLEMENTATION_NAME
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = instance
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = STUDY_DATE, STUDY_TIME
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = STUDY_DATE
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = STUDY_TIME
    dataset.AccessionNumber = f"USX{seed}"[:16]
    dataset.Manufacturer = "usx"
    dataset.ManufacturerModelName = "usx_phantom"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = "1"
    dataset.InstitutionName = "simulated"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Simulated lumbar spine"
    dataset.PatientName = f"Phantom^Seed {seed}"
    dataset.PatientID = f"USX-PHANTOM-{seed}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "simulated, no patient"
    dataset.StudyInstanceUID = make_uid("study", seed)
    dataset.StudyID = str(seed)[:16]
    dataset.BodyPartExamined = "LSPINE"
    return dataset


def set_pixels(dataset: Dataset, pixels: NDArray[np.uint16], bits_stored: int) -> None:
    """Put a (rows, columns) uint16 image into `dataset`, unsigned, one sample per pixel."""
    dataset.SamplesPerPixel = 1
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = bits_stored
    dataset.HighBit = bits_stored - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.astype("<u2").tobytes()


def decimal(number: float) -> str:
    """A DICOM decimal string (16 characters at most) as near to `number` as that allows. Raises CannotWrite for a
    number that is not finite."""
    if not np.isfinite(number):
        raise CannotWrite(f"{number} cannot be written as a DICOM decimal string: it is not finite")
    for digits in range(15, 0, -1):
        text = f"{float(number) + 0.0:.{digits}g}"
        if len(text) <= 16:
            return text
    raise CannotWrite(f"{number} cannot be written as a DICOM decimal string")


def save(dataset: Dataset, path: Path) -> None:
    """Write a DICOM file with preamble, making its folder. Raises CannotWrite naming the file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
    except OSError as error:
        raise CannotWrite(f"DICOM file {path} cannot be written: {error.strerror or error}") from error
