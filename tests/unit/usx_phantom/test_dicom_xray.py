"""The radiograph's DICOM file, read back with pydicom and checked against the standard's attribute tables."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import config
from pydicom.sr.codedict import codes

from usx_common.errors import UsxError
from usx_common.transforms import make_transform, rotation_about_axis
from usx_phantom import dicom_common, dicom_xray
from usx_phantom.xray import Radiograph, XraySettings

# DICOM PS3.3 table A.26-1 with its modules: what a DX image must hold. Type 1: present with a value; 2: present.
TYPE_1 = """SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID Modality PresentationIntentType ImageType
InstanceNumber PixelIntensityRelationship PixelIntensityRelationshipSign RescaleIntercept RescaleSlope RescaleType
LossyImageCompression BurnedInAnnotation SamplesPerPixel PhotometricInterpretation Rows Columns BitsAllocated BitsStored
HighBit PixelRepresentation PixelData ImageLaterality ViewCodeSequence AnatomicRegionSequence ImagerPixelSpacing
PresentationLUTShape WindowCenter WindowWidth DetectorType""".split()
TYPE_2 = """PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime ReferringPhysicianName StudyID
AccessionNumber SeriesNumber Manufacturer PatientOrientation BodyPartExamined AcquisitionContextSequence
DistanceSourceToDetector DistanceSourceToPatient PositionerPrimaryAngle PositionerSecondaryAngle KVP""".split()


def radiograph(settings: XraySettings | None = None, seed: int = 7) -> Radiograph:
    settings = settings or XraySettings(columns=80, rows=100, spacing=0.31)
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 1 << settings.bits_stored, (settings.rows, settings.columns)).astype(np.uint16)
    axes = np.column_stack([[0, -1, 0], [0, 0, -1], [1, 0, 0]]).astype(float)
    if settings.detector_side == "right":
        axes = np.column_stack([[0, 1, 0], [0, 0, -1], [-1, 0, 0]]).astype(float)
    return Radiograph(pixels, make_transform(axes, [-750.0, 1.0, 2.0]), settings, seed)


def written(made: Radiograph, tmp_path: Path) -> pydicom.Dataset:
    path = tmp_path / "new" / "lateral.dcm"
    dicom_xray.write(made, path)
    return pydicom.dcmread(path)


def test_pixels_and_geometry_read_back(tmp_path: Path) -> None:
    made = radiograph()
    dataset = written(made, tmp_path)
    assert dataset.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.1.1"
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert (dataset.pixel_array == made.pixels).all() and dataset.pixel_array.dtype == np.uint16
    assert (dataset.Rows, dataset.Columns) == (100, 80)
    assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation) == (16, 14, 13, 0)
    assert float(dataset.DistanceSourceToDetector) == 1100.0 and float(dataset.DistanceSourceToPatient) == 750.0
    assert float(dataset.EstimatedRadiographicMagnificationFactor) == pytest.approx(1100 / 750, abs=1e-12)
    assert [float(v) for v in dataset.ImagerPixelSpacing] == [0.31, 0.31]
    assert "PixelSpacing" not in dataset  # it would need a calibration
    assert list(dataset.PatientOrientation) == ["A", "F"] and dataset.ViewPosition == "LL"
    assert float(dataset.PositionerPrimaryAngle) == 90.0 and float(dataset.PositionerSecondaryAngle) == 0.0
    assert dataset.BodyPartExamined == "LSPINE" and dataset.Modality == "DX"
    view = codes.cid4010.LeftLateral.value  # from the standard's own table
    assert (dataset.ViewCodeSequence[0].CodeValue, dataset.ViewCodeSequence[0].CodeMeaning) == (view, "left lateral")


def test_lengths_are_along_rows_first_as_a_real_device_writes_them(tmp_path: Path) -> None:
    """Row dimension, then column dimension (PS3.3 C.8.11.4): height, then width of the field."""
    dataset = written(radiograph(XraySettings(columns=80, rows=100, spacing=0.4)), tmp_path)
    assert list(dataset.FieldOfViewDimensions) == [40, 32]
    assert [float(v) for v in dataset.DetectorActiveDimensions] == [40.0, 32.0]
    assert [float(v) for v in dataset.DetectorActiveOrigin] == [0.0, 0.0]
    assert [float(v) for v in dataset.DetectorElementSpacing] == [0.4, 0.4]


def test_exposure_and_grid_agree_with_each_other(tmp_path: Path) -> None:
    dataset = written(radiograph(), tmp_path)
    milliampere_seconds = float(dataset.XRayTubeCurrent) * float(dataset.ExposureTime) / 1000.0
    assert float(dataset.Exposure) == pytest.approx(milliampere_seconds)
    assert float(dataset.ExposureInuAs) == pytest.approx(1000.0 * milliampere_seconds)
    assert 70 <= float(dataset.KVP) <= 100 and float(dataset.FocalSpots) == 0.6
    assert list(dataset.Grid) == ["FIXED", "PARALLEL"]
    assert written(radiograph(replace(XraySettings(columns=80, rows=100), scatter=4.0)), tmp_path).Grid == "NONE"


def test_right_lateral_has_its_own_code(tmp_path: Path) -> None:
    dataset = written(radiograph(XraySettings(columns=80, rows=100, detector_side="right")), tmp_path)
    assert dataset.ViewCodeSequence[0].CodeValue == codes.cid4010.RightLateral.value
    assert dataset.AnatomicRegionSequence[0].CodeValue == codes.cid4030.LumbarSpine.value


def test_camera_matrix_follows_from_the_tags(tmp_path: Path) -> None:
    made = radiograph()
    dataset = written(made, tmp_path)
    focal = float(dataset.DistanceSourceToDetector) / float(dataset.ImagerPixelSpacing[0])
    expected = [[focal, 0, (dataset.Columns - 1) / 2], [0, focal, (dataset.Rows - 1) / 2], [0, 0, 1]]
    np.testing.assert_allclose(made.camera_matrix, expected)


def test_every_required_attribute_is_there(tmp_path: Path) -> None:
    dataset = written(radiograph(), tmp_path)
    assert [name for name in TYPE_1 if name not in dataset or dataset[name].is_empty] == []
    assert [name for name in TYPE_2 if name not in dataset] == []
    assert list(dataset.ImageType[:2]) == ["ORIGINAL", "PRIMARY"]
    assert dataset.PositionerType == "CARM"  # a defined term
    for item in dataset.iterall():  # a sequence that may be left out must not be empty
        assert item.VR != "SQ" or len(item.value) > 0 or item.keyword in (
            "AcquisitionContextSequence", "ViewModifierCodeSequence")


def test_every_value_is_legal_for_its_type(tmp_path: Path) -> None:
    """pydicom's own validation, made an error for reading and for writing."""
    path = tmp_path / "x.dcm"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dicom_xray.write(radiograph(), path)
        before = config.settings.reading_validation_mode
        config.settings.reading_validation_mode = config.RAISE
        try:
            dataset = pydicom.dcmread(path)
            for element in dataset.iterall():
                assert element.VR != "UN" and not element.tag.is_private
        finally:
            config.settings.reading_validation_mode = before
    assert len(dataset.SOPInstanceUID) <= 64 and dataset.SOPInstanceUID.is_valid


@pytest.mark.parametrize("change, expected", [
    ({"photometric": "MONOCHROME1"}, {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE",
                                      "PixelIntensityRelationshipSign": 1}),
    ({"photometric": "MONOCHROME2"}, {"PresentationLUTShape": "IDENTITY", "PixelIntensityRelationshipSign": -1}),
    ({"intent": "PROCESSING"}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1", "PixelIntensityRelationship": "LIN",
                                "PresentationIntentType": "FOR PROCESSING", "PixelIntensityRelationshipSign": 1}),
    ({"detector_side": "right"}, {"ViewPosition": "RL", "PatientOrientation": ["P", "F"],
                                  "PositionerPrimaryAngle": -90}),
    ({"bits_stored": 12}, {"BitsStored": 12, "HighBit": 11}),
])
def test_settings_show_in_the_file(change: dict, expected: dict, tmp_path: Path) -> None:
    dataset = written(radiograph(replace(XraySettings(columns=80, rows=100), **change)), tmp_path)
    assert {name: dataset[name].value for name in expected} == expected


def test_a_tilted_view_tells_its_angle(tmp_path: Path) -> None:
    made = radiograph()
    tilt = make_transform(rotation_about_axis([0, 1, 0], np.radians(-6.0)), [0.0, 0.0, 0.0])  # beam towards the head
    dataset = written(replace(made, xray_to_cbct=tilt @ made.xray_to_cbct), tmp_path)
    assert float(dataset.PositionerSecondaryAngle) == pytest.approx(6.0)


def test_identifiers_and_bytes_follow_from_the_content(tmp_path: Path) -> None:
    for name, made in (("a", radiograph()), ("b", radiograph()), ("c", radiograph(seed=8))):
        dicom_xray.write(made, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    a, c = pydicom.dcmread(tmp_path / "a"), pydicom.dcmread(tmp_path / "c")
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID"):
        assert a[name].value != c[name].value
    changed = radiograph()
    changed.pixels[0, 0] ^= 1
    assert dicom_xray.to_dataset(changed).SOPInstanceUID != a.SOPInstanceUID


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsxError, match=r"lateral\.dcm"):
        dicom_xray.write(radiograph(), tmp_path / "file" / "lateral.dcm")


@pytest.mark.parametrize("number", [0.0, -0.0, 1.0, -1100.0, 1 / 3, -1 / 3, 1e-9 / 3, -123456.789012345, 22 / 15])
def test_decimal_strings_fit_and_keep_the_number(number: float) -> None:
    text = dicom_common.decimal(number)
    assert len(text) <= 16 and "-0" != text
    assert float(text) == pytest.approx(number, rel=1e-8, abs=1e-300)


def test_numbers_without_a_value_are_refused() -> None:
    for number in (np.nan, np.inf):
        with pytest.raises(UsxError, match="finite"):
            dicom_common.decimal(number)
