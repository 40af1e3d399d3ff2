"""Geometry of a curvilinear probe's image, modelled on the 5C1: fan, pixel size, and where the pixels lie in space.

Frames. `us_probe`: origin at the centre of the transducer face, x lateral (image columns), z along the central beam
(image rows, depth), y = z cross x the elevation. `us_image`: centre of pixel (0, 0), x columns, y rows; its z is
x cross y, so it points along -y of us_probe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError

BORDER_PX = 2.0  # free pixels on each side of the fan, so that no pixel of it touches the image's edge


class BadProbe(UsxError):
    """Numbers that describe no curvilinear probe."""


@dataclass(frozen=True)
class ProbeGeometry:
    """Size of probe and image: `radius` of the face and `depth` from it in mm, `field_of_view` in degrees,
    image size in pixels. The pixel is square and as small as lets the whole fan fit (rounded up to 1 um)."""

    radius: float = 60.0
    field_of_view: float = 60.0
    depth: float = 160.0
    columns: int = 640
    rows: int = 480

    def __post_init__(self) -> None:
        _within("radius", self.radius, 5.0, 200.0, "mm")
        _within("field_of_view", self.field_of_view, 5.0, 170.0, "degrees")
        _within("depth", self.depth, 5.0, 400.0, "mm")
        _within("columns", self.columns, 32, 8192, "pixels")
        _within("rows", self.rows, 32, 8192, "pixels")

    @property
    def half_angle(self) -> float:
        """Half the field of view, radians."""
        return math.radians(self.field_of_view) / 2.0

    @property
    def pixel(self) -> float:
        """Edge of a pixel, mm."""
        width = 2.0 * (self.radius + self.depth) * math.sin(self.half_angle)
        height = self.radius + self.depth - self.radius * math.cos(self.half_angle)
        finest = max(width / (self.columns - 1 - 2 * BORDER_PX), height / (self.rows - 1 - 2 * BORDER_PX))
        return math.ceil(finest * 1000.0 - 1e-9) / 1000.0

    @property
    def apex(self) -> tuple[float, float]:
        """(column, row) of the point where all scan lines meet; its row is negative (above the image)."""
        return (self.columns - 1) / 2.0, BORDER_PX - self.radius * math.cos(self.half_angle) / self.pixel

    @property
    def mask_fan(self) -> tuple[float, float, float, float, float, float]:
        """(apex column, apex row, smallest and largest radius in pixels, smallest and largest angle in degrees);
        angles from the +row axis, positive towards +column."""
        half = self.field_of_view / 2.0
        return (*self.apex, self.radius / self.pixel, (self.radius + self.depth) / self.pixel, -half, half)

    @property
    def image_to_probe(self) -> NDArray[np.float64]:
        """(4, 4): (column, row, elevation, 1) in pixels -> mm in us_probe."""
        column, row = self.apex
        s = self.pixel
        return np.array([
            [s, 0.0, 0.0, -s * column],
            [0.0, 0.0, -s, 0.0],
            [0.0, s, 0.0, -s * row - self.radius],
            [0.0, 0.0, 0.0, 1.0],
        ])

    def line_angles(self, lines: int) -> NDArray[np.float64]:
        """Angles (lines,) of equally spread scan lines, radians, from one edge of the fan to the other."""
        return np.linspace(-self.half_angle, self.half_angle, lines)

    def line_rays(self, lines: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where the scan lines leave the face and their unit directions, each (lines, 3), mm, frame us_probe."""
        angles = self.line_angles(lines)
        directions = np.stack([np.sin(angles), np.zeros(lines), np.cos(angles)], axis=1)
        return self.radius * directions - np.array([0.0, 0.0, self.radius]), directions


def _within(name: str, value: float, low: float, high: float, unit: str) -> None:
    if not (np.isfinite(value) and low <= value <= high):
        raise BadProbe(f"probe {name} = {value} {unit}: must be {low:g} to {high:g}")
