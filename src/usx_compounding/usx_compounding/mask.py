"""Which pixels of an image count: all, a rectangle, or the fan of a curved probe; as runs that a kernel can walk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError

MaskKind = Literal["none", "rectangle", "fan"]
Runs = NDArray[np.int32]


@dataclass(frozen=True)
class Fan:
    """The field of view of a curved probe, in pixels and degrees.

    Angles are measured at the apex from the +row axis (away from the probe), positive towards +column.
    """

    apex_column: float
    apex_row: float
    radius_min: float
    radius_max: float
    angle_min: float
    angle_max: float

    def __post_init__(self) -> None:
        values = [getattr(self, name) for name in self.__dataclass_fields__]
        if not np.all(np.isfinite(values)):
            raise UsxError(f"fan {values} holds a number that is not finite")
        if not 0.0 <= self.radius_min < self.radius_max:
            raise UsxError(f"fan radii {self.radius_min} .. {self.radius_max} px: needed is 0 <= smallest < largest")
        if not -90.0 < self.angle_min < self.angle_max < 90.0:
            raise UsxError(f"fan angles {self.angle_min} .. {self.angle_max} degrees: needed: -90 < first < last < 90")

    def polar(self, columns: NDArray, rows: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Radius (px) and angle (degrees) of pixels."""
        right, down = np.asarray(columns) - self.apex_column, np.asarray(rows) - self.apex_row
        return np.hypot(right, down), np.degrees(np.arctan2(right, down))


@dataclass(frozen=True)
class MaskSettings:
    """``rectangle``: first column, first row, last column, last row, all inside. ``fan``: as `Fan`."""

    kind: MaskKind = "none"
    rectangle: tuple[int, int, int, int] | None = None
    fan: Fan | None = field(default=None)

    def __post_init__(self) -> None:
        if self.kind == "rectangle" and self.rectangle is None:
            raise UsxError("mask of kind rectangle: its four numbers are missing")
        if self.kind == "fan" and self.fan is None:
            raise UsxError("mask of kind fan: its six numbers are missing")
        if self.kind not in ("none", "rectangle", "fan"):
            raise UsxError(f"mask kind {self.kind!r} is unknown: it must be none, rectangle or fan")


def make_mask(settings: MaskSettings, rows: int, columns: int) -> NDArray[np.bool_]:
    """(rows, columns) mask, True where a pixel counts. Raises UsxError when no pixel of such an image does."""
    if settings.kind == "rectangle" and settings.rectangle is not None:
        first_column, first_row, last_column, last_row = settings.rectangle
        mask = np.zeros((rows, columns), dtype=bool)
        mask[max(first_row, 0):last_row + 1, max(first_column, 0):last_column + 1] = True
    elif settings.kind == "fan" and settings.fan is not None:
        radius, angle = settings.fan.polar(*np.meshgrid(np.arange(columns), np.arange(rows)))
        mask = (radius >= settings.fan.radius_min) & (radius <= settings.fan.radius_max)
        mask &= (angle >= settings.fan.angle_min) & (angle <= settings.fan.angle_max)
    else:
        mask = np.ones((rows, columns), dtype=bool)
    if not mask.any():
        raise UsxError(f"the {settings.kind} mask leaves no pixel of an image of {columns} x {rows} pixels")
    return mask


def to_runs(mask: NDArray[np.bool_]) -> Runs:
    """(runs, 3) int32 of a mask: row, first column, one past the last column; row by row, left to right."""
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), dtype=np.int8)
    padded[:, 1:-1] = mask
    edges = np.diff(padded, axis=1)
    rows, starts = np.nonzero(edges == 1)
    _, stops = np.nonzero(edges == -1)
    return np.stack([rows, starts, stops], axis=1).astype(np.int32)


def run_corners(runs: Runs) -> NDArray[np.int64]:
    """(4, 2) columns and rows of the smallest rectangle around all runs."""
    rows, left, right = runs[:, 0], runs[:, 1].min(), runs[:, 2].max() - 1
    return np.array([[c, r] for c in (left, right) for r in (rows.min(), rows.max())], dtype=np.int64)


def run_pixels(runs: Runs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns and rows of every pixel in the runs, (pixels,) each, in row-major order."""
    lengths = (runs[:, 2] - runs[:, 1]).astype(np.int64)
    rows = np.repeat(runs[:, 0].astype(np.int64), lengths)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return within + np.repeat(runs[:, 1].astype(np.int64), lengths), rows


def outline(settings: MaskSettings, rows: int, columns: int) -> NDArray[np.float64]:
    """(points, 2) columns and rows of a closed line around the field of view; the last point is the first."""
    if settings.kind == "fan" and settings.fan is not None:
        fan = settings.fan
        angles = np.radians(np.linspace(fan.angle_min, fan.angle_max, 9))
        ray = np.stack([np.sin(angles), np.cos(angles)], axis=1)
        line = np.vstack([fan.radius_min * ray, fan.radius_max * ray[::-1]]) + [fan.apex_column, fan.apex_row]
    elif settings.kind == "rectangle" and settings.rectangle is not None:
        left, top, right, bottom = settings.rectangle
        line = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.float64)
    else:
        line = np.array([[0, 0], [columns - 1, 0], [columns - 1, rows - 1], [0, rows - 1]], dtype=np.float64)
    line = np.clip(line, 0, [columns - 1, rows - 1])
    return np.vstack([line, line[:1]])
