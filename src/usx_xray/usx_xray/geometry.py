"""Cone-beam geometry of one X-ray: what its header states, what must be supplied, and the pixels of the mid plane.

Frame ``xray``: origin at the X-ray source, x along detector columns (increasing column), y along detector rows
(increasing row), z towards the detector along the principal ray; mm. Pixel (0, 0) is centred on the first value of
the first row.

The magnification rule: a spacing that holds at the detector is used as it is; a spacing that was calibrated for the
object's plane (PixelSpacingCalibrationType) belongs to a plane nearer to the source, so that the detector's spacing is
larger by SID / SOD. A PixelSpacing of a projection image whose plane nobody states is not guessed.
Source: DICOM PS3.3 10.7.1.3 (pixel spacing calibration), C.8.11.7 and C.8.7.5 (distances, magnification).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from usx_xray.refusal import Refused

SOD_DISAGREEMENT = 0.02
"""Relative difference of two statements of the source-object distance above which a note is made."""


@dataclass(frozen=True)
class GeometryOverrides:
    """What an operator supplies where the file is silent or wrong; 0 or an empty tuple means "as the file says".

    ``detector_spacing``: (row, column) distance of pixels at the detector, mm. ``principal_point``: (column, row) in
    pixels where the principal ray meets the detector.
    """

    source_to_detector: float = 0.0
    source_to_midplane: float = 0.0
    detector_spacing: tuple[float, ...] = ()
    principal_point: tuple[float, ...] = ()


@dataclass(frozen=True)
class XrayGeometry:
    """Pinhole model of one X-ray in its frame ``xray``.

    ``focal``: (2,) focal lengths along columns and rows in pixels; ``principal_point``: (column, row) in pixels;
    ``source_to_midplane``: distance in mm of the plane in which the bodies are taken to lie; ``source_to_detector``:
    mm, NaN where only camera_info is known; ``notes``: where each figure came from.
    """

    focal: tuple[float, float]
    principal_point: tuple[float, float]
    source_to_midplane: float
    source_to_detector: float = math.nan
    notes: tuple[str, ...] = field(default=())

    @property
    def camera_matrix(self) -> NDArray[np.float64]:
        """(3, 3) matrix K: homogeneous pixel (column, row, 1) = K @ point of frame ``xray`` / z."""
        return np.array([[self.focal[0], 0.0, self.principal_point[0]],
                         [0.0, self.focal[1], self.principal_point[1]],
                         [0.0, 0.0, 1.0]])

    @property
    def midplane_spacing(self) -> tuple[float, float]:
        """(column, row) size in mm of a pixel seen in the mid plane."""
        return self.source_to_midplane / self.focal[0], self.source_to_midplane / self.focal[1]

    @property
    def magnification(self) -> float:
        """SID / source-to-midplane distance; NaN where the SID is not known."""
        return self.source_to_detector / self.source_to_midplane

    def pixels_to_midplane(self, pixels: NDArray) -> NDArray[np.float64]:
        """(N, 3) points, mm, frame ``xray``, on the mid plane, of ``pixels`` (N, 2) as (column, row)."""
        pixels = np.asarray(pixels, np.float64).reshape(-1, 2)
        plane = (pixels - self.principal_point) * np.array(self.midplane_spacing)
        return np.column_stack([plane, np.full(len(pixels), self.source_to_midplane)])

    def points_to_pixels(self, points: NDArray) -> NDArray[np.float64]:
        """(N, 2) pixels (column, row) of ``points`` (N, 3), mm, frame ``xray``, in front of the source."""
        points = np.asarray(points, np.float64).reshape(-1, 3)
        return points[:, :2] / points[:, 2:] * np.array(self.focal) + np.array(self.principal_point)


def geometry_of(header: Dataset, overrides: GeometryOverrides | None = None) -> XrayGeometry:
    """Geometry of a projection image. Raises Refused naming the attribute and the parameter that would supply it."""
    overrides = overrides or GeometryOverrides()
    distance, distance_note = _source_to_detector(header, overrides)
    stated_sod, sod_notes = _stated_source_to_object(header, distance)
    midplane = overrides.source_to_midplane or stated_sod
    if not midplane:
        raise Refused("no_geometry", "the source-to-object distance is missing: neither DistanceSourceToPatient "
                                     "(0018,1111) nor EstimatedRadiographicMagnificationFactor (0018,1114) is given; "
                                     "supply the parameter source_to_midplane (mm)")
    if not 0.0 < midplane < distance:
        raise Refused("bad_geometry", f"the mid plane at {midplane:g} mm from the source is not before the detector "
                                      f"at {distance:g} mm; check source_to_midplane and source_to_detector (mm)")
    spacing, spacing_note = _detector_spacing(header, overrides, distance, stated_sod or midplane)
    point, point_note = _principal_point(header, overrides)
    if overrides.source_to_midplane:
        sod_notes = (f"source to mid plane: {midplane:g} mm from the parameter source_to_midplane", *sod_notes[1:])
    return XrayGeometry((distance / spacing[1], distance / spacing[0]), point, midplane, distance,
                        (distance_note, *sod_notes, spacing_note, point_note))


def geometry_of_camera(matrix: NDArray, source_to_midplane: float) -> XrayGeometry:
    """Geometry of a plain image with camera matrix K (3, 3). Raises Refused where K is no pinhole without skew."""
    matrix = np.asarray(matrix, np.float64).reshape(3, 3)
    if not np.isfinite(matrix).all() or min(matrix[0, 0], matrix[1, 1]) <= 0 or matrix[2, 2] != 1.0:
        raise Refused("bad_camera_info", "camera_info.k has no positive focal lengths; fill in fx = SID / column "
                                         "spacing, fy = SID / row spacing, cx, cy")
    if matrix[0, 1] != 0.0:
        raise Refused("bad_camera_info", f"camera_info.k has a skew of {matrix[0, 1]:g}; detectors have none")
    if not source_to_midplane > 0.0:
        raise Refused("no_geometry", "camera_info does not say how far the patient's mid plane is from the source; "
                                     "supply the parameter source_to_midplane (mm)")
    return XrayGeometry((matrix[0, 0], matrix[1, 1]), (matrix[0, 2], matrix[1, 2]), source_to_midplane,
                        notes=("camera matrix from camera_info",
                               f"source to mid plane: {source_to_midplane:g} mm from the parameter"))


def _source_to_detector(header: Dataset, overrides: GeometryOverrides) -> tuple[float, str]:
    if overrides.source_to_detector:
        return overrides.source_to_detector, (f"source to detector: {overrides.source_to_detector:g} mm from the "
                                              "parameter source_to_detector")
    distance = positive_number(header, "DistanceSourceToDetector")
    if not distance:
        raise Refused("no_geometry", "DistanceSourceToDetector (0018,1110) is missing or not positive; supply the "
                                     "parameter source_to_detector (mm)")
    return distance, f"source to detector: {distance:g} mm from DistanceSourceToDetector (0018,1110)"


def _stated_source_to_object(header: Dataset, distance: float) -> tuple[float, tuple[str, ...]]:
    """Source-object distance of the file, 0 where it has none.

    The magnification factor is SID / SOD by its definition, whereas DistanceSourceToPatient means the isocentre in XA
    and the table or the patient's skin elsewhere: so the former decides where both are given.
    """
    patient = positive_number(header, "DistanceSourceToPatient")
    factor = positive_number(header, "EstimatedRadiographicMagnificationFactor")
    if not factor:
        return patient, (f"source to mid plane: {patient:g} mm from DistanceSourceToPatient (0018,1111)",)
    by_factor = distance / factor
    note = f"source to mid plane: {by_factor:g} mm from EstimatedRadiographicMagnificationFactor (0018,1114)"
    if patient and abs(patient - by_factor) > SOD_DISAGREEMENT * by_factor:
        return by_factor, (note, f"DistanceSourceToPatient (0018,1111) says {patient:g} mm instead: check "
                                 "source_to_midplane")
    return by_factor, (note,)


def _detector_spacing(header: Dataset, overrides: GeometryOverrides, distance: float,
                      source_to_object: float) -> tuple[tuple[float, float], str]:
    """(row, column) spacing at the detector, mm, and where it came from."""
    if overrides.detector_spacing:
        row, column = overrides.detector_spacing
        return (row, column), f"detector spacing: {row:g} x {column:g} mm from the parameter detector_spacing"
    imager = positive_pair(header, "ImagerPixelSpacing")
    if imager:
        return imager, f"detector spacing: {imager[0]:g} x {imager[1]:g} mm from ImagerPixelSpacing (0018,1164)"
    pixel = positive_pair(header, "PixelSpacing")
    if not pixel:
        raise Refused("no_geometry", "neither ImagerPixelSpacing (0018,1164) nor PixelSpacing (0028,0030) holds "
                                     "positive numbers; supply the parameter detector_spacing ([row, column], mm)")
    calibration = str(header.get("PixelSpacingCalibrationType", "") or "").upper()
    if calibration not in ("GEOMETRY", "FIDUCIAL"):
        raise Refused("no_geometry", f"PixelSpacing (0028,0030) is {pixel[0]:g} x {pixel[1]:g} mm, but nothing says "
                                     "whether at the detector or in the patient (ImagerPixelSpacing (0018,1164) and "
                                     "PixelSpacingCalibrationType (0028,0A02) are missing); supply the parameter "
                                     "detector_spacing ([row, column], mm)")
    factor = distance / source_to_object
    return ((pixel[0] * factor, pixel[1] * factor),
            f"detector spacing: PixelSpacing (0028,0030) calibrated by {calibration} x magnification {factor:.5g}")


def _principal_point(header: Dataset, overrides: GeometryOverrides) -> tuple[tuple[float, float], str]:
    if overrides.principal_point:
        column, row = overrides.principal_point
        return (column, row), f"principal point: column {column:g}, row {row:g} from the parameter principal_point"
    point = ((int(header.Columns) - 1) / 2.0, (int(header.Rows) - 1) / 2.0)
    return point, "principal point: the middle of the image (supply principal_point for a cropped image)"


def positive_number(header: Dataset, keyword: str) -> float:
    """Value of a numeric attribute; 0 when it is missing, no number, or not positive."""
    try:
        value = float(header.get(keyword) or 0.0)
    except (TypeError, ValueError):
        return 0.0
    return value if math.isfinite(value) and value > 0.0 else 0.0


def positive_pair(header: Dataset, keyword: str) -> tuple[float, float] | None:
    """Two positive numbers of an attribute; None when it is missing or anything else."""
    try:
        first, second = (float(value) for value in header.get(keyword) or ())
    except (TypeError, ValueError):
        return None
    if not (math.isfinite(first) and math.isfinite(second) and min(first, second) > 0.0):
        return None
    return first, second
