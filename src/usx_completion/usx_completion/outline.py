"""Outlines of vertebral bodies in the plane of the lateral X-ray, and the silhouette a model shows there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from usx_common.errors import UsxError

BINS = 72
PIXEL_MM = 1.0


@dataclass(frozen=True)
class XrayPlane:
    """The plane the X-ray's points lie in, frame spine, mm: ``origin`` (3,) and orthonormal rows ``axes`` (3, 3).

    The first row is the plane's normal (about patient left), then about posterior, then about cranial.
    """

    origin: NDArray[np.float64]
    axes: NDArray[np.float64]

    def flatten(self, points: NDArray) -> NDArray[np.float64]:
        """(N, 2) coordinates (posterior, cranial) in the plane of points (N, 3) projected along its normal."""
        return (np.asarray(points) - self.origin) @ self.axes[1:].T


@dataclass(frozen=True)
class Outline:
    """Closed outline of a body: ``points`` (M, 2) in the plane, mm, outward ``normals`` (M, 2), ``centre`` (2,)."""

    points: NDArray[np.float64]
    normals: NDArray[np.float64]
    centre: NDArray[np.float64]


def fit_plane(points: NDArray, largest_tilt_deg: float = 35.0) -> XrayPlane:
    """Plane of least squares through the X-ray's points (N, 3), mm, frame spine.

    Raises UsxError when the points are too few, on a line, or when the plane is far from sagittal.
    """
    if len(points) < 3:
        raise UsxError(f"the X-ray has {len(points)} points; a plane needs three")
    origin = points.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((points - origin).T))
    if values[1] < 1.0:
        raise UsxError("the X-ray's points lie on a line")
    normal = vectors[:, 0] * np.sign(vectors[0, 0] or 1.0)
    if normal[0] < np.cos(np.radians(largest_tilt_deg)):
        angle = np.degrees(np.arccos(np.clip(normal[0], -1.0, 1.0)))
        raise UsxError(f"the X-ray's plane is {angle:.0f} degrees off the sagittal plane")
    cranial = np.array([0.0, 0.0, 1.0]) - normal[2] * normal
    cranial /= np.linalg.norm(cranial)
    return XrayPlane(origin, np.stack([normal, np.cross(cranial, normal), cranial]))


def outline_of_region(points: NDArray, smallest_mm: float = 12.0, largest_mm: float = 75.0) -> Outline:
    """Outline of the region that the points (N, 2), mm, fill; stray points apart from it are left out.

    The outline is the furthest extent in every direction from the centre (a body's projection is star-shaped), half a
    point spacing outside of the outermost points. Raises UsxError for a region that cannot be a vertebral body.
    """
    if len(points) < 20:
        raise UsxError(f"the body's region in the X-ray has {len(points)} points; 20 are needed")
    low = points.min(axis=0)
    extent = points.max(axis=0) - low
    if extent.max() > 4.0 * largest_mm:
        raise UsxError(f"the body's region in the X-ray spans {extent.max():.0f} mm")
    spacing = float(np.median(cKDTree(points).query(points, k=2)[0][:, 1]))
    region = _filled_region(points, low, extent, spacing)
    centre = region.mean(axis=0)
    extent = np.ptp(region, axis=0)
    if extent.min() < smallest_mm or extent.max() > largest_mm:
        raise UsxError(f"the body's region in the X-ray is {extent[0]:.0f} x {extent[1]:.0f} mm; "
                       f"a vertebral body is {smallest_mm:.0f} to {largest_mm:.0f} mm")
    near = points[cKDTree(region).query(points)[0] < 2.0 * PIXEL_MM]
    radius = polar_extent(near - centre) + 0.5 * min(spacing, 2.0)
    angles = bin_angles()
    curve = centre + radius[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    tangent = np.roll(curve, -1, axis=0) - np.roll(curve, 1, axis=0)
    normals = np.column_stack([tangent[:, 1], -tangent[:, 0]]) / np.linalg.norm(tangent, axis=1, keepdims=True)
    return Outline(curve, normals, centre)


def polar_extent(offsets: NDArray) -> NDArray[np.float64]:
    """(BINS,) largest distance from the centre in each direction; empty directions are interpolated."""
    index = direction_bins(offsets)
    radius = np.zeros(BINS)
    # the extent along the bin's own direction, so that a bin's width does not bias it
    angles = bin_angles()[index]
    np.maximum.at(radius, index, offsets[:, 0] * np.cos(angles) + offsets[:, 1] * np.sin(angles))
    known = np.flatnonzero(radius > 0)
    return np.interp(np.arange(BINS), known, radius[known], period=BINS)


def silhouette(flat: NDArray) -> NDArray[np.int64]:
    """Indices of the rows of ``flat`` (N, 2) that lie outermost in each direction from their middle."""
    middle = 0.5 * (flat.min(axis=0) + flat.max(axis=0))
    offsets = flat - middle
    index = direction_bins(offsets)
    squared = np.einsum("ni,ni->n", offsets, offsets)
    inwards_out = np.argsort(-squared, kind="stable")[::-1]
    outermost = np.full(BINS, -1)
    outermost[index[inwards_out]] = inwards_out  # the last one stays
    return outermost[outermost >= 0]


def direction_bins(offsets: NDArray) -> NDArray[np.int64]:
    """Bin (N,) of the direction of each offset (N, 2)."""
    turns = np.arctan2(offsets[:, 1], offsets[:, 0]) / (2.0 * np.pi) + 0.5
    return np.minimum((turns * BINS).astype(np.int64), BINS - 1)


def bin_angles() -> NDArray[np.float64]:
    """(BINS,) direction in radians of each bin's middle."""
    return ((np.arange(BINS) + 0.5) / BINS - 0.5) * 2.0 * np.pi


def _filled_region(points: NDArray, low: NDArray, extent: NDArray, spacing: float) -> NDArray[np.float64]:
    """(M, 2) pixel centres of the largest connected region, holes filled."""
    margin = 6
    size = np.ceil(extent / PIXEL_MM).astype(int) + 2 * margin + 1
    mask = np.zeros(tuple(size), dtype=bool)
    cells = np.floor((points - low) / PIXEL_MM).astype(int) + margin
    mask[cells[:, 0], cells[:, 1]] = True
    reach = int(np.clip(np.ceil(spacing / PIXEL_MM), 1, 4))
    mask = ndimage.binary_closing(mask, iterations=reach)
    names, count = ndimage.label(mask)
    largest = 1 + int(np.argmax(ndimage.sum(mask, names, np.arange(1, count + 1))))
    filled = ndimage.binary_fill_holes(names == largest)
    return (np.argwhere(filled) - margin + 0.5) * PIXEL_MM + low
