import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from usx_xray.geometry import GeometryOverrides, XrayGeometry, geometry_of, geometry_of_camera
from usx_xray.refusal import Refused


def header(**attributes: object) -> Dataset:
    dataset = Dataset()
    dataset.Rows, dataset.Columns = 1280, 1024
    values = {"DistanceSourceToDetector": "1100", "DistanceSourceToPatient": "750",
              "ImagerPixelSpacing": ["0.3", "0.2"]}
    for name, value in {**values, **attributes}.items():
        if value is not None:
            setattr(dataset, name, value)
    return dataset


def test_stated_geometry() -> None:
    geometry = geometry_of(header())
    np.testing.assert_allclose(geometry.focal, (1100 / 0.2, 1100 / 0.3))  # row spacing comes first in DICOM
    assert geometry.principal_point == (511.5, 639.5)
    assert geometry.source_to_midplane == 750.0
    np.testing.assert_allclose(geometry.midplane_spacing, (0.2 * 750 / 1100, 0.3 * 750 / 1100))


def test_magnification_rule() -> None:
    """A spacing calibrated for the patient is smaller than the detector's by SOD / SID."""
    at_detector = geometry_of(header(ImagerPixelSpacing=["0.22", "0.22"]))
    calibrated = geometry_of(header(ImagerPixelSpacing=None, PixelSpacing=["0.15", "0.15"],
                                    PixelSpacingCalibrationType="GEOMETRY"))
    np.testing.assert_allclose(calibrated.focal, at_detector.focal)  # 0.15 * 1100 / 750 = 0.22
    np.testing.assert_allclose(calibrated.midplane_spacing, (0.15, 0.15))


def test_imager_spacing_wins_over_pixel_spacing() -> None:
    geometry = geometry_of(header(PixelSpacing=["0.1", "0.1"], PixelSpacingCalibrationType="FIDUCIAL"))
    np.testing.assert_allclose(geometry.focal, (1100 / 0.2, 1100 / 0.3))


def test_magnification_factor_decides_and_a_disagreement_is_noted() -> None:
    geometry = geometry_of(header(EstimatedRadiographicMagnificationFactor="1.375"))
    assert geometry.source_to_midplane == pytest.approx(800.0)
    assert any("750" in note for note in geometry.notes)


@pytest.mark.parametrize(("attributes", "tag", "parameter"), [
    ({"DistanceSourceToDetector": None}, "(0018,1110)", "source_to_detector"),
    ({"DistanceSourceToDetector": "0"}, "(0018,1110)", "source_to_detector"),
    ({"DistanceSourceToPatient": None}, "(0018,1111)", "source_to_midplane"),
    ({"DistanceSourceToPatient": "1200"}, "mid plane", "source_to_midplane"),
    ({"ImagerPixelSpacing": None}, "(0028,0030)", "detector_spacing"),
    ({"ImagerPixelSpacing": ["0", "0"]}, "(0018,1164)", "detector_spacing"),
    ({"ImagerPixelSpacing": None, "PixelSpacing": ["0.2", "0.2"]}, "(0028,0A02)", "detector_spacing"),
])
def test_refusals_name_the_attribute_and_the_parameter(attributes: dict, tag: str, parameter: str) -> None:
    with pytest.raises(Refused) as caught:
        geometry_of(header(**attributes))
    assert tag in str(caught.value) and parameter in str(caught.value)


def test_operator_supplies_everything() -> None:
    empty = header(DistanceSourceToDetector=None, DistanceSourceToPatient=None, ImagerPixelSpacing=None)
    geometry = geometry_of(empty, GeometryOverrides(1000.0, 800.0, (0.25, 0.2), (10.0, 20.0)))
    np.testing.assert_allclose(geometry.camera_matrix, [[5000, 0, 10], [0, 4000, 20], [0, 0, 1]])


@given(st.tuples(st.floats(0, 1023), st.floats(0, 1279)), st.floats(100.0, 3000.0), st.floats(0.1, 0.9),
       st.floats(0.05, 1.0))
def test_projection_inverts_the_midplane(pixel: tuple[float, float], sid: float, share: float, spacing: float) -> None:
    geometry = XrayGeometry((sid / spacing, sid / spacing), (511.5, 639.5), sid * share, sid)
    points = geometry.pixels_to_midplane(np.array([pixel]))
    assert points[0, 2] == sid * share
    np.testing.assert_allclose(geometry.points_to_pixels(points)[0], pixel, atol=1e-6)
    # similar triangles, by hand: the offset on the detector shrinks with the distance to the source
    np.testing.assert_allclose(points[0, 0], (pixel[0] - 511.5) * spacing * share, atol=1e-6)


def test_camera_of_a_plain_image() -> None:
    matrix = np.array([[3666.0, 0, 500], [0, 3666.0, 600], [0, 0, 1]])
    assert geometry_of_camera(matrix, 750.0).source_to_midplane == 750.0
    for bad, distance in [(np.zeros((3, 3)), 750.0), (matrix, 0.0), (matrix * np.nan, 750.0), (-matrix, 750.0),
                          (matrix + np.array([[0, 1, 0], [0, 0, 0], [0, 0, 0]]), 750.0)]:
        with pytest.raises(Refused):
            geometry_of_camera(bad, distance)
