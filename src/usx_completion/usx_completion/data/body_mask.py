"""The shadow of a vertebral body on a plane as pixels, the errors a segmentation makes, its outline and its filling."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from usx_common.errors import UsxError
from usx_completion.data.raster import nearest_surface
from usx_completion.data.setting_checks import check_ranges, check_settings

MARGIN_PIXELS = 12


@dataclass(frozen=True)
class BodyMask:
    """Signed distance (Y, Z) in mm, positive inside, of pixels ``pixel`` mm wide; ``low`` (2,): centre of the first."""

    distance: NDArray[np.float64]
    low: NDArray[np.float64]
    pixel: float


@dataclass(frozen=True)
class SegmentationErrors:
    """Errors of a segmented body: boundary noise (SD ``boundary_mm``, correlated over ``boundary_length_mm``) and,
    with chance ``corner`` for each body, a corner missing by ``corner_mm`` (low, high) along its diagonal."""

    boundary_mm: float = 0.8
    boundary_length_mm: float = 7.0
    corner: float = 0.25
    corner_mm: tuple[float, float] = (2.0, 8.0)

    def __post_init__(self) -> None:
        check_settings(self, {"boundary_mm": (0.0, 10.0), "boundary_length_mm": (0.5, 100.0), "corner": (0.0, 1.0),
                              "corner_mm": (0.0, 30.0)})
        check_ranges(self, ("corner_mm",))


def mask_of(flat: NDArray, faces: NDArray, pixel_mm: float) -> BodyMask:
    """Mask of projected vertices ``flat`` (V, 2), mm, and their triangles. Raises UsxError when they cover nothing."""
    used = flat[np.unique(faces)] if len(faces) else flat[:0]
    if len(used) == 0:
        raise UsxError("no face belongs to the vertebral body; its silhouette is empty")
    low = used.min(axis=0) - MARGIN_PIXELS * pixel_mm
    size = np.ceil((used.max(axis=0) - low) / pixel_mm).astype(int) + MARGIN_PIXELS
    pixels = np.column_stack([(flat - low) / pixel_mm, np.zeros(len(flat))])
    _, owner = nearest_surface(pixels, faces, int(size[0]), int(size[1]))
    inside = (owner >= 0).astype(np.uint8)
    if not inside.any():
        raise UsxError(f"the body's silhouette covers no pixel of {pixel_mm} mm")
    return BodyMask(_signed_distance(inside) * pixel_mm, low, pixel_mm)


def missegmented(mask: BodyMask, errors: SegmentationErrors, random: np.random.Generator) -> BodyMask:
    """The mask as an imperfect segmentation would have it; at least a quarter of its area is left."""
    sigma = errors.boundary_length_mm / mask.pixel / 2.0
    noise = gaussian_filter(random.standard_normal(mask.distance.shape), sigma, mode="wrap")
    distance = mask.distance + errors.boundary_mm * noise / max(float(noise.std()), 1e-12)
    corner, angle = random.integers(4), random.uniform(np.radians(25.0), np.radians(65.0))
    depth = random.uniform(*errors.corner_mm)
    if random.random() < errors.corner:
        inwards = np.array([np.cos(angle), np.sin(angle)]) * [1.0 if corner % 2 else -1.0, 1.0 if corner // 2 else -1.0]
        y, z = np.nonzero(mask.distance > 0)
        along = inwards[0] * y + inwards[1] * z
        rows, columns = np.indices(mask.distance.shape)
        cut = (inwards[0] * rows + inwards[1] * columns - along.min()) * mask.pixel - depth
        distance = np.minimum(distance, cut)
    wrong = _largest_part(distance > 0)
    if wrong.sum() < 0.25 * (mask.distance > 0).sum():
        return mask
    return BodyMask(_signed_distance(wrong) * mask.pixel, mask.low, mask.pixel)


def outline(mask: BodyMask, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(count, 2) points of the closed outline at even spacing, mm, and their outward normals (count, 2)."""
    inside = _largest_part(mask.distance > 0)
    curves, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    curve = max(curves, key=len)[:, 0, ::-1].astype(np.float64)
    smooth = gaussian_filter(mask.distance, 1.0) / mask.pixel
    for _ in range(2):  # onto the zero of the signed distance
        slope = np.stack([map_coordinates(g, curve.T, order=1, mode="nearest") for g in np.gradient(smooth)], axis=1)
        length = np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 0.3)
        here = map_coordinates(smooth, curve.T, order=1, mode="nearest")
        curve = curve - np.clip(here[:, None] / length, -1.0, 1.0) * slope / length
    even = _even(curve, count)
    tangent = np.roll(even, -2, axis=0) - np.roll(even, 2, axis=0)  # two steps: a pixel's stairs would show in one
    normals = np.column_stack([tangent[:, 1], -tangent[:, 0]])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    x, y = even.T
    area = np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
    return even * mask.pixel + mask.low, normals * (1.0 if area > 0 else -1.0)


def filling(mask: BodyMask, count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """(count, 2) points that fill the mask, mm: its pixels in random order, each point anywhere in its pixel."""
    pixels = np.argwhere(mask.distance > 0)
    chosen = pixels[np.resize(random.permutation(len(pixels)), count)]
    return (chosen + random.uniform(-0.5, 0.5, (count, 2))) * mask.pixel + mask.low


def _signed_distance(inside: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Distance in pixels to the border halfway between the pixels inside and outside; positive inside."""
    # not OpenCV's, which rounds differently from run to run
    inner, outer = distance_transform_edt(inside), distance_transform_edt(1 - inside)
    return np.where(inside > 0, inner - 0.5, 0.5 - outer)


def _largest_part(inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    count, names = cv2.connectedComponents(inside.astype(np.uint8), connectivity=4)
    if count < 2:
        return inside.astype(np.uint8)
    return (names == 1 + int(np.argmax(np.bincount(names.ravel())[1:]))).astype(np.uint8)


def _even(curve: NDArray, count: int) -> NDArray[np.float64]:
    """Points at even steps along a closed curve."""
    closed = np.vstack([curve, curve[:1]])
    way = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))]
    at = np.arange(count) * way[-1] / count
    return np.column_stack([np.interp(at, way, closed[:, 0]), np.interp(at, way, closed[:, 1])])
