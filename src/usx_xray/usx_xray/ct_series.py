"""A CT or cone-beam CT series as one volume: slices sorted by position and checked, values in Hounsfield units.

The file names and InstanceNumber say nothing reliable about the order; the position along the slices' normal does
(DICOM PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from usx_common.volumes import Volume, VolumeGrid
from usx_xray.dicom_file import FrameSource, Limits, guarded, pixel_format, read_header
from usx_xray.geometry import positive_pair
from usx_xray.refusal import Refused
from usx_xray.xray_image import acquisition_time

MODALITIES = ("CT",)


@dataclass(frozen=True)
class SeriesLimits:
    """``volume_bytes`` bounds the volume in memory; the others how far slices may be from a regular stack (mm; a
    share of the spacing; cosine of an angle)."""

    volume_bytes: int = 2 * 2**30
    spacing_tolerance: float = 0.05
    position_tolerance: float = 0.05
    direction_tolerance: float = 1e-3
    file: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Slice:
    """Place of one image of the series: ``origin`` (3,) mm, patient LPS, of pixel (0, 0); ``axes`` (2, 3) unit vectors
    along columns and rows; ``spacing`` (row, column) mm; ``frame`` counts from 0 in its file."""

    path: Path
    frame: int
    header: Dataset
    origin: NDArray[np.float64]
    axes: NDArray[np.float64]
    spacing: tuple[float, float]

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.cross(self.axes[0], self.axes[1])


@dataclass(frozen=True)
class CtSeries:
    """``volume``: int16 Hounsfield units, frame ``cbct`` (DICOM patient LPS, mm); ``stamp_ns`` of the first slice."""

    volume: Volume
    stamp_ns: int
    uid: str


def read_series(paths: Sequence[Path], limits: SeriesLimits | None = None) -> CtSeries:
    """Volume of the files of one series, in any order. Raises Refused; there is no partial volume."""
    limits = limits or SeriesLimits()
    if not paths:
        raise Refused("empty_series", "the series has no files")
    slices = [item for path in sorted(paths) for item in slices_of(path, read_header(path, limits.file))]
    return series_of_slices(slices, limits)


def slices_of(path: Path, header: Dataset) -> list[Slice]:
    """The images of one file: one, or one per frame of an enhanced CT. Raises Refused."""
    modality = str(header.get("Modality", "") or "")
    if modality not in MODALITIES:
        raise Refused("modality", f"Modality (0008,0060) is {modality[:16]!r}; a volume is read from CT")
    if "PerFrameFunctionalGroupsSequence" in header:
        return guarded(lambda: _enhanced_slices(path, header), "the enhanced CT's functional groups are incomplete")
    return [_slice(path, 0, header, header, header)]


def series_of_slices(slices: Sequence[Slice], limits: SeriesLimits) -> CtSeries:
    """Volume of ``slices``. Raises Refused naming what keeps them from being one regular stack."""
    uids = {str(item.header.get("SeriesInstanceUID", "")) for item in slices}
    if len(uids) > 1:
        raise Refused("mixed_series", f"the files belong to {len(uids)} series; keep one series per folder")
    if len(slices) < 2:
        raise Refused("missing_slices", "the series has a single slice; a volume needs two or more")
    ordered, step = _ordered(slices, limits)
    stated = pixel_format(ordered[0].header, limits.file)
    needed = 2 * stated.rows * stated.columns * len(ordered)
    if needed > limits.volume_bytes:
        raise Refused("too_large", f"the volume of {stated.columns} x {stated.rows} x {len(ordered)} voxels needs "
                                   f"{needed} bytes; {limits.volume_bytes} are allowed")
    values = np.empty((len(ordered), stated.rows, stated.columns), np.int16)
    path, source = None, None
    for target, item in zip(values, ordered, strict=True):
        if source is None or item.path != path:
            path, source = item.path, FrameSource(item.path, item.header, limits.file)
        target[...] = hounsfield(item, source.frame(item.frame), target.shape)
    row_spacing, column_spacing = ordered[0].spacing
    grid = VolumeGrid(ordered[0].origin, np.array([column_spacing, row_spacing, step]), values.shape[::-1],
                      np.column_stack([ordered[0].axes[0], ordered[0].axes[1], ordered[0].normal]))
    return CtSeries(Volume(values, grid), acquisition_time(ordered[0].header), uids.pop())


def hounsfield(item: Slice, pixels: NDArray, shape: tuple[int, ...]) -> NDArray[np.int16]:
    """Hounsfield units (rows, columns) of the stored ``pixels`` of one slice; padding becomes air. Raises Refused."""
    if pixels.shape != shape:
        raise Refused("mixed_series", f"slices of {shape} and of {pixels.shape} pixels are in one series")
    slope, intercept = _rescale(item)
    values = pixels.astype(np.float32) * slope + intercept
    padding = item.header.get("PixelPaddingValue")
    if isinstance(padding, int):
        values[pixels == padding] = -1000.0
    return np.clip(np.rint(values), -32768, 32767).astype(np.int16)


def _rescale(item: Slice) -> tuple[float, float]:
    source = item.header
    if "PerFrameFunctionalGroupsSequence" in source:
        source = _group(source, item.frame, "PixelValueTransformationSequence")
    try:
        slope, intercept = float(source.get("RescaleSlope")), float(source.get("RescaleIntercept"))
    except (TypeError, ValueError) as error:
        raise Refused("missing_attribute", "RescaleSlope (0028,1053) or RescaleIntercept (0028,1052) is missing: the "
                                           "values cannot be turned into Hounsfield units") from error
    if not (np.isfinite([slope, intercept]).all() and slope > 0.0):
        raise Refused("bad_attribute", f"RescaleSlope (0028,1053) is {slope:g}; it must be positive")
    return slope, intercept


def _slice(path: Path, frame: int, header: Dataset, position: Dataset, measures: Dataset,
           orientation: Dataset | None = None) -> Slice:
    origin = _numbers(position, "ImagePositionPatient", 3)
    axes = _numbers(orientation if orientation is not None else position, "ImageOrientationPatient", 6).reshape(2, 3)
    lengths = np.linalg.norm(axes, axis=1)
    if abs(lengths - 1.0).max() > 1e-2 or abs(axes[0] @ axes[1]) > 1e-2:
        raise Refused("bad_attribute", "ImageOrientationPatient (0020,0037) is no pair of perpendicular unit vectors")
    spacing = positive_pair(measures, "PixelSpacing")
    if spacing is None:
        raise Refused("no_geometry", "PixelSpacing (0028,0030) is missing or not positive")
    first = axes[0] / lengths[0]
    second = axes[1] - (axes[1] @ first) * first
    return Slice(path, frame, header, origin, np.array([first, second / np.linalg.norm(second)]), spacing)


def _enhanced_slices(path: Path, header: Dataset) -> list[Slice]:
    return [_slice(path, frame, header, _group(header, frame, "PlanePositionSequence"),
                   _group(header, frame, "PixelMeasuresSequence"), _group(header, frame, "PlaneOrientationSequence"))
            for frame in range(len(header.PerFrameFunctionalGroupsSequence))]


def _group(header: Dataset, frame: int, name: str) -> Dataset:
    """Functional group of a frame, its own or the one shared by all."""
    own = header.PerFrameFunctionalGroupsSequence[frame]
    if name in own:
        return own[name].value[0]
    shared = header.get("SharedFunctionalGroupsSequence") or []
    if shared and name in shared[0]:
        return shared[0][name].value[0]
    raise Refused("missing_attribute", f"the enhanced CT lacks {name} for frame {frame + 1}")


def _numbers(source: Dataset, keyword: str, count: int) -> NDArray[np.float64]:
    try:
        values = np.array([float(value) for value in source.get(keyword) or ()])
    except (TypeError, ValueError):
        values = np.zeros(0)
    if len(values) != count or not np.isfinite(values).all():
        raise Refused("no_geometry", f"{keyword} is missing or does not hold {count} numbers")
    return values


def _ordered(slices: Sequence[Slice], limits: SeriesLimits) -> tuple[list[Slice], float]:
    """Slices along their normal, and the distance between them, mm."""
    first = slices[0]
    for item in slices:
        if np.abs(item.axes - first.axes).max() > limits.direction_tolerance:
            raise Refused("mixed_series", "slices of different orientation are in one series (a localiser?)")
        if np.abs(np.array(item.spacing) / first.spacing - 1.0).max() > 1e-3:
            raise Refused("mixed_series", "slices of different PixelSpacing (0028,0030) are in one series")
    ordered = sorted(slices, key=lambda item: float(item.origin @ first.normal))
    steps = np.diff([float(item.origin @ first.normal) for item in ordered])
    step = float(np.median(steps))
    if steps.min() < 0.01:
        raise Refused("duplicate_slices", f"two slices lie at one position ({int((steps < 0.01).sum())} times); the "
                                          "series was sent twice or holds several reconstructions")
    if abs(steps - step).max() > max(limits.spacing_tolerance * step, 0.02):
        gap = float(steps.max())
        raise Refused("missing_slices", f"slices are {step:g} mm apart, but {gap:g} mm at the widest gap: one or more "
                                        "are missing or unevenly spaced")
    drift = ordered[-1].origin - ordered[0].origin
    sideways = drift - (drift @ first.normal) * first.normal
    if np.linalg.norm(sideways) > max(limits.position_tolerance * first.spacing[0] * len(ordered), 0.5):
        raise Refused("tilted_gantry", f"the stack leans sideways by {np.linalg.norm(sideways):.1f} mm (tilted "
                                       "gantry); resample it first")
    return ordered, step
