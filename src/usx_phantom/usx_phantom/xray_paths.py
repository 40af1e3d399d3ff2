"""Lengths and integrals along the rays of a cone-beam radiograph: bone, trunk, gas, unevenness of soft tissue."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from usx_common.transforms import apply, invert, rotate
from usx_common.volumes import Volume
from usx_phantom.density import Ellipsoid, Trunk
from usx_phantom.xray_settings import XraySettings

STEP = 0.62  # of the finest voxel spacing, of the ray march
COARSE = 8  # the trunk's chord is computed at every eighth pixel


def integrate(volume: Volume, xray_to_cbct: NDArray[np.float64], settings: XraySettings) -> NDArray[np.float64]:
    """(rows, columns) integral of a volume's values along the ray to each pixel, value x mm (trilinear, 0 outside)."""
    source = apply(invert(volume.grid.index_to_world), xray_to_cbct[:3, 3])
    corner, along, down = _detector(xray_to_cbct, settings)
    result = np.zeros((settings.rows, settings.columns))
    step = STEP * float(volume.grid.spacing.min())
    _march(volume.values, source, xray_to_cbct[:3, 3], corner, along, down, 1.0 / volume.grid.spacing, step, result)
    return result


def trunk_chord(skin: Trunk, xray_to_cbct: NDArray[np.float64], settings: XraySettings) -> NDArray[np.float64]:
    """(rows, columns) mm of the rays within the trunk, computed at every eighth pixel.

    The trunk is met once by a ray: its ends are looked for in steps of 4 mm and then halved to 0.02 mm.
    """
    corner, along, down = _detector(xray_to_cbct, settings)
    columns, rows = np.meshgrid(np.arange(0, settings.columns + COARSE, COARSE),
                                np.arange(0, settings.rows + COARSE, COARSE))
    source = xray_to_cbct[:3, 3]
    directions = corner + columns[..., None] * along + rows[..., None] * down - source
    directions = (directions / np.linalg.norm(directions, axis=-1, keepdims=True)).reshape(-1, 3)
    reach = np.arange(0.0, settings.source_to_detector, 4.0)
    met = np.stack([skin.inside(source + r * directions) for r in reach], axis=1)
    first = reach[met.argmax(axis=1)]
    last = reach[len(reach) - 1 - met[:, ::-1].argmax(axis=1)]
    entry = _halve(skin, source, directions, first, np.maximum(first - 4.0, 0.0))
    leave = _halve(skin, source, directions, last, np.minimum(last + 4.0, settings.source_to_detector))
    chord = np.where(met.any(axis=1), leave - entry, 0.0).reshape(rows.shape)
    return stretch(chord, (settings.rows, settings.columns), COARSE, 0.0)


def gas_chord(pockets: tuple[Ellipsoid, ...], xray_to_cbct: NDArray[np.float64],
              settings: XraySettings) -> NDArray[np.float64]:
    """(rows, columns) mm of the rays within gas."""
    source = xray_to_cbct[:3, 3]
    corner, along, down = _detector(xray_to_cbct, settings)
    gas = np.zeros((settings.rows, settings.columns))
    columns = np.arange(settings.columns)[:, None] * along
    for pocket in pockets:
        first, last = _rows_of(pocket, xray_to_cbct, settings)
        for row in range(first, last):
            directions = corner + columns + row * down - source
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
            gas[row] += pocket.chord(source, directions)
    return gas


def _rows_of(pocket: Ellipsoid, xray_to_cbct: NDArray[np.float64], settings: XraySettings) -> tuple[int, int]:
    """First and last row in which the box of a pocket has its shadow."""
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    corners = apply(invert(xray_to_cbct), np.array(pocket.centre) + signs * np.array(pocket.half_axes))
    if corners[:, 2].min() <= 1.0:
        return 0, settings.rows
    rows = corners[:, 1] / corners[:, 2] * settings.source_to_detector / settings.spacing + (settings.rows - 1) / 2.0
    first, last = np.clip([np.floor(rows.min()), np.ceil(rows.max()) + 1.0], 0.0, settings.rows)
    return int(first), int(last)


def mottle(settings: XraySettings, seed: int) -> NDArray[np.float64]:
    """(rows, columns) relative thickness of the soft tissue: muscles, fat and bowel that no ellipse describes.

    A random pattern of mean 1 with structures of 5, 15 and 45 mm in the patient.
    """
    random = np.random.default_rng([int(seed), 22])
    magnification = settings.source_to_detector / settings.source_to_isocentre
    pattern = np.ones((settings.rows, settings.columns))
    for size, share in ((5.0, 0.15), (15.0, 0.4), (45.0, 1.0)):
        step = size * magnification / settings.spacing
        shape = (int(settings.rows / step) + 3, int(settings.columns / step) + 3)
        knots = ndimage.gaussian_filter(ndimage.zoom(random.normal(size=shape), 4, order=3), 1.0)
        pattern += settings.mottle * share * stretch(knots, pattern.shape, max(int(step / 4.0), 1), 0.0)
    return pattern


def stretch(coarse: NDArray[np.float64], shape: tuple[int, ...], factor: int, offset: float) -> NDArray[np.float64]:
    """Bilinear values of shape `shape`; sample i of `coarse` lies at pixel i * `factor` + `offset`."""
    for axis in (0, 1):
        position = np.clip((np.arange(shape[axis]) - offset) / factor, 0.0, coarse.shape[axis] - 1.0)
        whole = np.minimum(position.astype(int), max(coarse.shape[axis] - 2, 0))
        part = (position - whole).reshape((-1, 1) if axis == 0 else (1, -1))
        after = np.minimum(whole + 1, coarse.shape[axis] - 1)
        coarse = np.take(coarse, whole, axis) * (1.0 - part) + np.take(coarse, after, axis) * part
    return coarse


def _halve(skin: Trunk, source: NDArray[np.float64], directions: NDArray[np.float64], inner: NDArray[np.float64],
           outer: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances (N,) of the surface between `inner` and `outer`, by eight bisections."""
    for _ in range(8):
        middle = (inner + outer) / 2.0
        inside = skin.inside(source + middle[:, None] * directions)
        inner, outer = np.where(inside, middle, inner), np.where(inside, outer, middle)
    return (inner + outer) / 2.0


def _detector(xray_to_cbct: NDArray[np.float64],
              settings: XraySettings) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Centre of pixel (0, 0) and the steps of one column and one row, mm, frame `cbct`."""
    s = settings.spacing
    corner = np.array([-s * (settings.columns - 1) / 2.0, -s * (settings.rows - 1) / 2.0,
                       settings.source_to_detector])
    return (apply(xray_to_cbct, corner), rotate(xray_to_cbct, np.array([s, 0.0, 0.0])),
            rotate(xray_to_cbct, np.array([0.0, s, 0.0])))


@numba.njit(cache=True, parallel=True)
def _march(values, start, source, corner, along, down, per_mm, step, result):  # type: ignore[no-untyped-def]
    """Sum of trilinear samples along each ray; `start` is the source in voxel units."""
    nz, ny, nx = values.shape
    last = np.array([nx - 1.0, ny - 1.0, nz - 1.0])
    for row in numba.prange(result.shape[0]):
        d = np.empty(3)
        for column in range(result.shape[1]):
            length = 0.0
            for a in range(3):
                d[a] = corner[a] + column * along[a] + row * down[a] - source[a]
                length += d[a] * d[a]
            length = np.sqrt(length)
            near, far = 0.0, length
            for a in range(3):
                d[a] *= per_mm[a] / length
                speed = d[a]
                if abs(speed) < 1e-12:
                    speed = 1e-12
                t0, t1 = -start[a] / speed, (last[a] - start[a]) / speed
                near, far = max(near, min(t0, t1)), min(far, max(t0, t1))
            total = 0.0
            for k in range(np.int64(np.ceil(near / step)), np.int64(np.floor(far / step)) + 1):
                x, y, z = start[0] + k * step * d[0], start[1] + k * step * d[1], start[2] + k * step * d[2]
                i, j, m = min(int(x), nx - 2), min(int(y), ny - 2), min(int(z), nz - 2)
                u, v, w = x - i, y - j, z - m
                lower = (1 - v) * ((1 - u) * values[m, j, i] + u * values[m, j, i + 1]) \
                    + v * ((1 - u) * values[m, j + 1, i] + u * values[m, j + 1, i + 1])
                upper = (1 - v) * ((1 - u) * values[m + 1, j, i] + u * values[m + 1, j, i + 1]) \
                    + v * ((1 - u) * values[m + 1, j + 1, i] + u * values[m + 1, j + 1, i + 1])
                total += (1 - w) * lower + w * upper
            result[row, column] = total * step
