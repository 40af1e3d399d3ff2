"""A partial spine made ready for the fit: checked, bounded in size, the X-ray's bodies turned into outlines."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from usx_common.clouds import finite_rows, voxel_downsample
from usx_common.errors import UsxError
from usx_common.levels import LEVEL_NAMES, SOURCE_ULTRASOUND, SOURCE_XRAY, UNKNOWN_LABEL
from usx_completion.outline import Outline, XrayPlane, fit_plane, outline_of_region

KNOWN_LABELS = (UNKNOWN_LABEL, *LEVEL_NAMES)


class BadPartial(UsxError):
    """A partial spine that cannot be used; ``reason`` is a short snake_case name for the counters."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class ObservationSettings:
    """Bounds of what is kept: clouds larger than ``largest_cloud`` are thinned before anything else."""

    voxel_mm: float = 2.0
    largest_cloud: int = 400_000
    largest_extent_mm: float = 1000.0
    smallest_cloud: int = 100
    smallest_level: int = 60
    smallest_spread_mm: float = 5.0


@dataclass(frozen=True)
class SpineObservation:
    """Ultrasound ``points`` (N, 3) with ``labels`` (N,), mm, frame spine; ``outlines`` per level in ``plane``.

    ``reasons``: level (or "xray") -> why its X-ray is not used. ``dropped`` rows had numbers that are not finite.
    """

    points: NDArray[np.float64]
    labels: NDArray[np.int64]
    plane: XrayPlane | None = None
    outlines: dict[str, Outline] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    dropped: int = 0

    def count(self, label: int) -> int:
        """Number of ultrasound points with this label."""
        return int(np.sum(self.labels == label))


def observe(points: NDArray, labels: NDArray, sources: NDArray,
            settings: ObservationSettings | None = None) -> SpineObservation:
    """Check and prepare a partial spine: ``points`` (N, 3) mm, frame spine, ``labels`` 0 or 20..24, ``sources`` 0 or 1.

    Raises BadPartial for clouds that are empty, too small, without extent, or have unknown labels or sources.
    """
    settings = settings or ObservationSettings()
    points, labels, sources = _check(points, labels, sources)
    finite = finite_rows(points)
    dropped = int(np.sum(~finite))
    points, labels, sources = points[finite], labels[finite], sources[finite]
    if len(points) < settings.smallest_cloud:
        raise BadPartial("too_few_points", f"the partial spine has {len(points)} usable points; "
                                           f"{settings.smallest_cloud} are needed")
    extents = np.ptp(points, axis=0)
    if extents.max() > settings.largest_extent_mm:
        raise BadPartial("too_large", f"the partial spine spans {extents.max():.0f} mm; a lumbar spine is below "
                                      f"{settings.largest_extent_mm:.0f} mm (are the units metres?)")
    _check_spread(points, settings)
    stride = -(-len(points) // settings.largest_cloud)
    points, labels, sources = points[::stride], labels[::stride].astype(np.int64), sources[::stride]
    ultrasound = sources == SOURCE_ULTRASOUND
    kept, kept_labels = _downsample(points[ultrasound], labels[ultrasound], settings.voxel_mm)
    plane, outlines, reasons = _outlines(points[~ultrasound], labels[~ultrasound])
    return SpineObservation(kept, kept_labels, plane, outlines, reasons, dropped)


def _check(points: NDArray, labels: NDArray, sources: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    points = np.asarray(points, dtype=np.float64)
    labels, sources = np.asarray(labels), np.asarray(sources)
    if points.ndim != 2 or points.shape[1] != 3 or labels.shape != (len(points),) or sources.shape != (len(points),):
        raise BadPartial("wrong_shape", f"points {points.shape}, labels {labels.shape} and sources {sources.shape} "
                                        "do not belong together")
    if len(points) == 0:
        raise BadPartial("empty", "the partial spine has no points")
    unknown = np.setdiff1d(labels, KNOWN_LABELS)
    if len(unknown):
        raise BadPartial("unknown_label", f"label {unknown[0]} is unknown; known are 0 and 20..24")
    unknown = np.setdiff1d(sources, (SOURCE_ULTRASOUND, SOURCE_XRAY))
    if len(unknown):
        raise BadPartial("unknown_source", f"source {unknown[0]} is unknown; known are 0 (ultrasound) and 1 (X-ray)")
    return points, labels, sources


def _check_spread(points: NDArray, settings: ObservationSettings) -> None:
    spread = np.sqrt(np.linalg.eigvalsh(np.cov(points.T)).clip(min=0.0))
    if spread[1] < settings.smallest_spread_mm:
        raise BadPartial("no_extent", f"the partial spine is nearly a line (spread {spread[1]:.1f} mm across it)")


def _downsample(points: NDArray, labels: NDArray, voxel_mm: float) -> tuple[NDArray, NDArray]:
    clouds = [voxel_downsample(points[labels == label], voxel_mm) for label in KNOWN_LABELS]
    kept_labels = np.repeat(KNOWN_LABELS, [len(cloud) for cloud in clouds])
    return np.concatenate(clouds), kept_labels


def _outlines(points: NDArray, labels: NDArray
              ) -> tuple[XrayPlane | None, dict[str, Outline], dict[str, str]]:
    outlines: dict[str, Outline] = {}
    reasons: dict[str, str] = {}
    labelled = labels != UNKNOWN_LABEL
    if not labelled.any():
        return None, outlines, {"xray": "no X-ray points with a level"}
    try:
        plane = fit_plane(points[labelled])
    except UsxError as error:
        return None, outlines, {"xray": str(error)}
    for label, level in LEVEL_NAMES.items():
        region = points[labels == label]
        if len(region) == 0:
            continue
        try:
            outlines[level] = outline_of_region(plane.flatten(region))
        except UsxError as error:
            reasons[level] = str(error)
    return plane, outlines, reasons


def as_codes(values: NDArray, name: str, points: NDArray) -> NDArray[np.int64]:
    """Whole numbers (N,) of a float32 cloud field; 0 for ``points`` (N, 3) that are not finite, which will be dropped.

    Raises BadPartial for a value that is not whole, or not finite."""
    values = np.where(finite_rows(points), np.asarray(values, dtype=np.float64), 0.0)
    whole = np.isfinite(values) & (np.abs(values) < 2**31)
    if not whole.all() or np.any(values != np.rint(values)):
        wrong = values[~whole | (values != np.rint(np.where(whole, values, 0.5)))][0]
        raise BadPartial(f"unknown_{name}", f"{name} {wrong} is not a whole number")
    return values.astype(np.int64)
