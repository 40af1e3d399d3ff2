"""DICOM files of real devices, and damaged ones, as they are found in public collections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from usx_xray.ct_series import read_series
from usx_xray.dicom_file import read_frame, read_header
from usx_xray.geometry import GeometryOverrides, geometry_of
from usx_xray.refusal import Refused
from usx_xray.xray_image import read_xray

pytestmark = pytest.mark.real_data
SUPPLIED = GeometryOverrides(1000.0, 700.0, (0.2, 0.2))


def test_every_file_gives_an_image_or_one_refusal(usx_data: Path) -> None:
    files = [path for path in sorted((usx_data / "dicom").rglob("*")) if path.is_file()]
    assert len(files) > 20
    outcomes = {}
    for path in files:
        try:
            pixels = read_frame(path, read_header(path))
            assert pixels.ndim == 2 and min(pixels.shape) > 1
            outcomes[path.name] = "image"
        except Refused as error:
            assert error.reason and str(error) and "\n" not in str(error)
            outcomes[path.name] = error.reason
    assert outcomes["MR_truncated.dcm"] == "truncated"
    assert outcomes["dwv-test_no-number-rows.dcm"] == "missing_attribute"
    assert outcomes["zipMR.gz"] == outcomes["no_meta.dcm"] == "not_dicom"
    assert outcomes["JPEG2000-embedded-sequence-delimiter.dcm"] == "image_size"
    assert outcomes["explicit_VR-UN.dcm"] == outcomes["JPGLosslessP14SV1_1s_1f_8b.dcm"] == "image"


@pytest.mark.parametrize("folder", ["malformed", "us"])
def test_nothing_there_is_an_xray(usx_data: Path, folder: str) -> None:
    for path in (usx_data / "dicom" / folder).iterdir():
        with pytest.raises(Refused):
            read_xray(path, SUPPLIED)


@pytest.mark.parametrize(("name", "words"), [
    ("RG1_JLSN.dcm", "source_to_midplane"), ("RG2_J2KR.dcm", "DistanceSourceToDetector"),
    ("XA1_J2KR.dcm", "DistanceSourceToDetector"), ("OutOfBoundsOverlay.dcm", "MG")])
def test_xrays_without_geometry_are_refused_by_name(usx_data: Path, name: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        read_xray(usx_data / "dicom" / "xray" / name)


def test_spacing_of_unknown_plane_or_zero_is_not_guessed(usx_data: Path) -> None:
    """RG2: 0.2 mm, but where? RG1: a SID, and a spacing of zero."""
    with pytest.raises(Refused, match="0028,0A02"):
        read_xray(usx_data / "dicom" / "xray" / "RG2_J2KR.dcm", GeometryOverrides(1000.0, 700.0))
    with pytest.raises(Refused, match="detector_spacing"):
        read_xray(usx_data / "dicom" / "xray" / "RG1_JLSN.dcm", GeometryOverrides(source_to_midplane=1500.0))


def test_compressed_equals_plain(usx_data: Path) -> None:
    folder = usx_data / "dicom" / "xray"
    compressed, plain = (read_xray(folder / f"XA1_{name}.dcm", SUPPLIED) for name in ("J2KR", "UNC"))
    assert plain.pixels.shape == (1024, 1024)
    np.testing.assert_array_equal(compressed.pixels, plain.pixels)


def test_inverted_lossy_radiograph(usx_data: Path) -> None:
    image = read_xray(usx_data / "dicom" / "xray" / "RG1_JLSN.dcm", SUPPLIED)
    stored = pydicom.dcmread(usx_data / "dicom" / "xray" / "RG1_JLSN.dcm").pixel_array.astype(float)
    assert np.corrcoef(image.pixels.ravel(), stored.ravel())[0, 1] < -0.999
    assert (image.pixels.min(), image.pixels.max()) == (stored.min(), stored.max())


def test_magnification_of_a_real_header(usx_data: Path) -> None:
    """SID 650 mm, SOD 623 mm: the vendor's own factor is 1.04334."""
    geometry = geometry_of(read_header(usx_data / "dicom" / "xray" / "OutOfBoundsOverlay.dcm"))
    assert geometry.magnification == pytest.approx(650.0 / 623.0, rel=1e-5)
    assert geometry.magnification == pytest.approx(1.04334, abs=1e-5)
    assert geometry.focal[0] == pytest.approx(650.0 / 0.085)


def test_ct_is_sorted_by_position(usx_data: Path) -> None:
    paths = sorted((usx_data / "dicom" / "ct" / "series_98892001_CT5N").iterdir())
    volume = read_series(paths).volume
    positions = [float(pydicom.dcmread(path).ImagePositionPatient[2]) for path in paths]
    assert positions != sorted(positions)  # the trap is there
    np.testing.assert_allclose(volume.grid.origin[2], min(positions))
    np.testing.assert_allclose(volume.grid.spacing, (0.488281, 0.488281, 2.5))
    for path, position in zip(paths, positions, strict=True):
        dataset = pydicom.dcmread(path)
        index = round((position - min(positions)) / 2.5)
        expected = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        np.testing.assert_array_equal(volume.values[index], expected)
    with pytest.raises(Refused) as caught:
        read_series([path for path, position in zip(paths, positions, strict=True) if abs(position - 3.76) > 0.1])
    assert caught.value.reason == "missing_slices"
