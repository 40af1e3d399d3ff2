"""From scan lines to a picture: bilinear conversion of a polar image (line, sample) to pixels of a fan, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError


class BadFan(UsxError):
    """Fan numbers or arrays that do not fit each other."""


class ScanConverter:
    """Conversion between a polar image and a fan picture.

    `fan` = (apex column, apex row, radius min px, radius max px, angle min deg, angle max deg), angles from the +row
    axis, positive towards +column. Line j lies at the j-th of equally spread angles, sample i at the i-th of equally
    spread radii, both ends included. `image_shape` = (rows, columns), `polar_shape` = (lines, samples).
    Raises BadFan for a fan without extent or without a pixel in the image.
    """

    def __init__(self, fan: Sequence[float], image_shape: tuple[int, int], polar_shape: tuple[int, int]) -> None:
        column, row, nearest, farthest, first, last = (float(number) for number in fan)
        lines, samples = polar_shape
        if not (np.isfinite(list(fan)).all() and 0 <= nearest < farthest and first < last):
            raise BadFan(f"fan {list(fan)}: radii and angles must be finite and ascending")
        if lines < 2 or samples < 2:
            raise BadFan(f"polar image of {lines} lines x {samples} samples: two of each are needed")
        self.image_shape, self.polar_shape = image_shape, polar_shape
        self._apex, self._radii, self._angles = (column, row), (nearest, farthest), (first, last)
        rows, columns = np.mgrid[: image_shape[0], : image_shape[1]]
        line, sample = self._polar_position(columns - column, rows - row)
        tolerance = 1e-9
        inside = (line >= -tolerance) & (line <= lines - 1 + tolerance)
        inside &= (sample >= -tolerance) & (sample <= samples - 1 + tolerance)
        if not inside.any():
            raise BadFan(f"fan {list(fan)} has no pixel in an image of {image_shape[1]} x {image_shape[0]}")
        self.mask = inside
        self._pixels = np.flatnonzero(inside).astype(np.int32)
        self._line = np.clip(line[inside], 0, lines - 1).astype(np.float32)
        self._sample = np.clip(sample[inside], 0, samples - 1).astype(np.float32)

    @property
    def places(self) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
        """Of every pixel in the fan, (N,) each: its index in the flat picture, its fractional line and sample."""
        return self._pixels, self._line, self._sample

    def to_image(self, polar: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Picture (rows, columns) of grey values `polar` (lines, samples) in 0..255, rounded; 0 outside the fan."""
        if polar.shape != self.polar_shape:
            raise BadFan(f"polar image of shape {polar.shape}; this converter takes {self.polar_shape}")
        image = np.zeros(self.image_shape, dtype=np.uint8)
        _fill(np.ascontiguousarray(polar, dtype=np.float32), self._pixels, self._line, self._sample,
              image.reshape(-1))
        return image

    def to_polar(self, image: NDArray) -> NDArray[np.float32]:
        """Grey values (lines, samples) of a picture (rows, columns), bilinear; the nearest pixels at the edges."""
        if image.shape != self.image_shape:
            raise BadFan(f"image of shape {image.shape}; this converter takes {self.image_shape}")
        lines, samples = self.polar_shape
        angle = np.radians(np.linspace(*self._angles, lines))[:, None]
        radius = np.linspace(*self._radii, samples)[None, :]
        column = np.clip(self._apex[0] + radius * np.sin(angle), 0, image.shape[1] - 1.000001)
        row = np.clip(self._apex[1] + radius * np.cos(angle), 0, image.shape[0] - 1.000001)
        c, r = column.astype(int), row.astype(int)
        fc, fr = column - c, row - r
        pixels = image.astype(np.float64)
        top = (1 - fc) * pixels[r, c] + fc * pixels[r, c + 1]
        bottom = (1 - fc) * pixels[r + 1, c] + fc * pixels[r + 1, c + 1]
        return ((1 - fr) * top + fr * bottom).astype(np.float32)

    def _polar_position(self, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
        """Fractional (line, sample) of points at `x` columns and `y` rows from the apex."""
        lines, samples = self.polar_shape
        angle = np.degrees(np.arctan2(x, y))
        line = (angle - self._angles[0]) * (lines - 1) / (self._angles[1] - self._angles[0])
        sample = (np.hypot(x, y) - self._radii[0]) * (samples - 1) / (self._radii[1] - self._radii[0])
        return line, sample


@numba.njit(cache=True, nogil=True)
def _fill(polar, pixels, line, sample, image):  # type: ignore[no-untyped-def]
    lines, samples = polar.shape
    for i in range(pixels.size):
        j = min(np.int32(line[i]), lines - 2)
        k = min(np.int32(sample[i]), samples - 2)
        u = line[i] - np.float32(j)
        v = sample[i] - np.float32(k)
        near = polar[j, k] + v * (polar[j, k + 1] - polar[j, k])
        far = polar[j + 1, k] + v * (polar[j + 1, k + 1] - polar[j + 1, k])
        grey = near + u * (far - near) + np.float32(0.5)
        image[pixels[i]] = np.uint8(min(max(grey, np.float32(0.0)), np.float32(255.0)))
