"""An image seen along its beams: columns of a linear probe, rays of a curved one; there and back by fixed tables."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from usx_compounding.mask import Fan, MaskSettings, make_mask


@dataclass(frozen=True)
class BeamTables:
    """Tables for images of one size. ``columns``, ``rows``: (beams, samples) float32 place of each sample, pixels.

    ``back``: (rows, columns) int32 sample (beam * samples + sample) nearest to each pixel, -1 outside the field of
    view. ``sample_mm``: distance of samples along a beam; ``beam_mm``: mean distance of neighbouring beams.
    """

    columns: NDArray[np.float32]
    rows: NDArray[np.float32]
    back: NDArray[np.int32]
    sample_mm: float
    beam_mm: float


def make_tables(settings: MaskSettings, shape: tuple[int, int], pixel_mm: tuple[float, float]) -> BeamTables:
    """Tables for images of ``shape`` (rows, columns); ``pixel_mm``: size of a pixel along columns and rows.

    A fan mask says that the beams are rays from its apex; any other geometry is taken as beams along the columns.
    """
    mask = make_mask(settings, *shape)
    if settings.kind == "fan" and settings.fan is not None:
        return _fan_tables(settings.fan, mask, float(np.mean(pixel_mm)))
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    grid_columns, grid_rows = np.meshgrid(np.arange(columns[0], columns[-1] + 1), np.arange(rows[0], rows[-1] + 1),
                                          indexing="ij")
    back = np.full(shape, -1, dtype=np.int32)
    back[grid_rows, grid_columns] = np.arange(grid_rows.size).reshape(grid_rows.shape)
    return BeamTables(grid_columns.astype(np.float32), grid_rows.astype(np.float32), np.where(mask, back, -1),
                      pixel_mm[1], pixel_mm[0])


def _fan_tables(fan: Fan, mask: NDArray[np.bool_], pixel_mm: float) -> BeamTables:
    middle = 0.5 * (fan.radius_min + fan.radius_max)
    beams = max(int(np.radians(fan.angle_max - fan.angle_min) * middle), 2)
    samples = max(int(fan.radius_max - fan.radius_min), 2)
    angles = np.radians(np.linspace(fan.angle_min, fan.angle_max, beams))
    radii = np.linspace(fan.radius_min, fan.radius_max, samples)
    columns = fan.apex_column + np.sin(angles)[:, None] * radii
    rows = fan.apex_row + np.cos(angles)[:, None] * radii
    radius, angle = fan.polar(*np.meshgrid(np.arange(mask.shape[1]), np.arange(mask.shape[0])))
    beam = np.rint((angle - fan.angle_min) / (fan.angle_max - fan.angle_min) * (beams - 1)).astype(int)
    sample = np.rint((radius - fan.radius_min) / (fan.radius_max - fan.radius_min) * (samples - 1)).astype(int)
    back = np.where(mask, beam * samples + sample, -1).astype(np.int32)
    step_mm = (fan.radius_max - fan.radius_min) / (samples - 1) * pixel_mm
    return BeamTables(columns.astype(np.float32), rows.astype(np.float32), back, step_mm,
                      float(angles[1] - angles[0]) * middle * pixel_mm)


@numba.njit(cache=True, nogil=True)
def sample_beams(image, columns, rows):  # type: ignore[no-untyped-def]
    """(beams, samples) float32 of an image (rows, columns) uint8 at the tables' places, bilinear; 0 outside."""
    height, width = image.shape
    out = np.zeros(columns.shape, dtype=np.float32)
    for beam in range(columns.shape[0]):
        for sample in range(columns.shape[1]):
            x, y = columns[beam, sample], rows[beam, sample]
            c, r = int(np.floor(x)), int(np.floor(y))
            if c < 0 or r < 0 or c >= width or r >= height:
                continue
            right, below = min(c + 1, width - 1), min(r + 1, height - 1)
            fx, fy = x - np.float32(c), y - np.float32(r)
            top = image[r, c] * (np.float32(1) - fx) + image[r, right] * fx
            bottom = image[below, c] * (np.float32(1) - fx) + image[below, right] * fx
            out[beam, sample] = top * (np.float32(1) - fy) + bottom * fy
    return out


@numba.njit(cache=True, nogil=True)
def to_image(values, back):  # type: ignore[no-untyped-def]
    """(rows, columns) uint8 image of (beams, samples) uint8 values; 0 outside the field of view."""
    out = np.zeros(back.shape, dtype=np.uint8)
    flat = values.reshape(-1)
    for row in range(back.shape[0]):
        for column in range(back.shape[1]):
            if back[row, column] >= 0:
                out[row, column] = flat[back[row, column]]
    return out
