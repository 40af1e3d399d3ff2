"""Square cut-outs of the X-ray around a point of the mid plane, in mm and turned to the spine, and their edges."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from usx_xray.geometry import XrayGeometry

EDGE_SCALE_MM = 0.8
"""Width (sigma) of the derivative of Gaussian: wide against noise, narrow against a cortex of 1 to 2 mm."""

CLEAR_EDGE_PERCENTILE = 92.0
"""A body's outline takes up about this last share of a cut-out: its edges then come to about 1, noise far below."""
BORDER_EDGE, BORDER_REACH_MM = 5.0, 2.5
"""An edge this many times a clear one is a collimator's border or metal, not bone; its flanks reach this far."""


@dataclass(frozen=True)
class PlaneImage:
    """An X-ray with coordinates: ``pixels`` (rows, columns) float32, and the geometry that gives them mm."""

    pixels: NDArray[np.float32]
    geometry: XrayGeometry

    def sample(self, plane_points: NDArray) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Values and "lies inside of the image" at ``plane_points`` (..., 2), mm, x and y of the mid plane."""
        spacing, point = self.geometry.midplane_spacing, self.geometry.principal_point
        columns = (plane_points[..., 0] / spacing[0] + point[0]).astype(np.float32)
        rows = (plane_points[..., 1] / spacing[1] + point[1]).astype(np.float32)
        values = cv2.remap(self.pixels, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        height, width = self.pixels.shape
        inside = (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)
        return np.asarray(values, np.float32), np.asarray(inside, np.bool_)

    def blurred(self, sigma_mm: float) -> PlaneImage:
        """The image after a Gaussian of ``sigma_mm`` in the mid plane."""
        column, row = self.geometry.midplane_spacing
        blurred = cv2.GaussianBlur(self.pixels, (0, 0), sigmaX=sigma_mm / column, sigmaY=sigma_mm / row,
                                   borderType=cv2.BORDER_REPLICATE)
        return PlaneImage(np.asarray(blurred, np.float32), self.geometry)


@dataclass(frozen=True)
class Patch:
    """Edges in a square: ``along_u``, ``along_v`` (n, n) are derivatives along depth and along the spine, soft-clipped
    to -1 .. 1 by the patch's own edge strength (so that neither exposure nor device matters); 0 outside of the image.

    Row i, column j lies at (v, u) = ((i - n // 2), (j - n // 2)) * step, mm from the centre.
    """

    along_u: NDArray[np.float32]
    along_v: NDArray[np.float32]
    step: float

    @property
    def middle(self) -> int:
        return self.along_u.shape[0] // 2


def patch_axes(axis: NDArray, angle: float) -> NDArray[np.float64]:
    """(2, 2) rows: unit vectors u (across the spine) and v (along it) for a spine ``axis`` turned by ``angle`` rad."""
    cosine, sine = np.cos(angle), np.sin(angle)
    v = np.array([[cosine, -sine], [sine, cosine]]) @ (np.asarray(axis, float) / np.linalg.norm(axis))
    return np.array([[v[1], -v[0]], v])


def grid_points(centre: NDArray, axes: NDArray, half_mm: float, step: float) -> NDArray[np.float64]:
    """(n, n, 2) points, n odd, of a square grid on the mid plane about ``centre``; rows along v, columns along u."""
    count = round(half_mm / step)
    offsets = np.arange(-count, count + 1) * step
    return centre + offsets[None, :, None] * axes[0] + offsets[:, None, None] * axes[1]


def edge_patch(image: PlaneImage, centre: NDArray, axes: NDArray, half_mm: float, step: float) -> Patch:
    """Edges around ``centre`` (2,), mm. ``image`` must be blurred by EDGE_SCALE_MM already."""
    values, inside = image.sample(grid_points(centre, axes, half_mm, step))
    along_v, along_u = np.gradient(values)
    safe = ~_grown(~inside, 2.0 * EDGE_SCALE_MM / step)
    magnitude = np.hypot(along_u, along_v)
    strength = edge_strength(magnitude[safe])
    safe &= ~_grown(magnitude > BORDER_EDGE * strength, BORDER_REACH_MM / step)
    along_u, along_v = (np.where(safe, soft_clipped(np.asarray(edges) / strength), 0.0).astype(np.float32)
                        for edges in (along_u, along_v))
    return Patch(along_u, along_v, step)


def soft_clipped(edges: NDArray) -> NDArray:
    """Edges in units of a clear one -> -1 .. 1; those too strong for bone fade to 0 again."""
    excess = np.maximum(np.abs(edges) - BORDER_EDGE / 2.0, 0.0)
    return np.tanh(edges) * np.exp(-0.5 * (2.0 * excess / BORDER_EDGE) ** 2)


def _grown(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    side = 2 * int(np.ceil(radius)) + 1
    return cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)),
                      borderType=cv2.BORDER_CONSTANT, borderValue=0).astype(bool)


def edge_strength(gradients: NDArray) -> float:
    """What counts as a clear edge among ``gradients`` (N,); never 0."""
    return max(float(np.percentile(gradients, CLEAR_EDGE_PERCENTILE)), 1e-9) if gradients.size else 1e-9
