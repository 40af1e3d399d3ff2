"""Signed-distance-like fields of smooth-blended solids: a vertebral body, elliptic rounded cones, a canal.

A field is negative inside and close to the distance (mm) near its zero level. Everything is in the vertebra's
own frame: x = left, y = posterior, z = cranial, origin at the centre of the body.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

# Columns of one cone: start (3), end (3), half axes along e1 and e2 at the start (2) and the end (2), e1 (3).
CONE_COLUMNS = 13
BODY_NAMES = (
    "half_width", "half_depth", "half_height", "waist_lateral", "waist_sagittal", "squareness", "kidney",
    "upper_slope", "lower_slope", "upper_hollow", "lower_hollow", "upper_hollow_y", "lower_hollow_y",
    "width_taper", "depth_taper", "rim_radius", "back_flatness", "shear", "centre_y", "centre_z", "rim_lateral",
)
CANAL_NAMES = ("half_width", "half_depth", "centre_y", "apex_narrowing", "slope")


@njit(cache=True)
def _cone_distance(x: float, y: float, z: float, c: np.ndarray) -> float:
    """Approximate distance to a rounded cone with elliptic cross-sections.

    The cross-section follows I. Quilez' bound for ellipsoids, k0 (k0 - 1) / k1, with k0 = |q/r| and k1 = |q/r^2|.
    """
    dx, dy, dz = c[3] - c[0], c[4] - c[1], c[5] - c[2]
    length = math.sqrt(dx * dx + dy * dy + dz * dz) + 1e-9
    dx, dy, dz = dx / length, dy / length, dz / length
    px, py, pz = x - c[0], y - c[1], z - c[2]
    along = px * dx + py * dy + pz * dz
    t = min(max(along / length, 0.0), 1.0)
    px, py, pz = px - t * length * dx, py - t * length * dy, pz - t * length * dz
    q1 = px * c[10] + py * c[11] + pz * c[12]
    e2x, e2y, e2z = dy * c[12] - dz * c[11], dz * c[10] - dx * c[12], dx * c[11] - dy * c[10]
    q2 = px * e2x + py * e2y + pz * e2z
    q3 = px * dx + py * dy + pz * dz
    r1 = c[6] + t * (c[8] - c[6])
    r2 = c[7] + t * (c[9] - c[7])
    r3 = min(r1, r2)
    k0 = math.sqrt((q1 / r1) ** 2 + (q2 / r2) ** 2 + (q3 / r3) ** 2)
    k1 = math.sqrt((q1 / r1**2) ** 2 + (q2 / r2**2) ** 2 + (q3 / r3**2) ** 2)
    if k1 < 1e-9:
        return -r3
    return max(k0 * (k0 - 1.0) / k1, -r3)


@njit(cache=True)
def _soft_max(a: float, b: float, radius: float) -> float:
    """Smooth maximum (polynomial, rounding `radius` mm)."""
    h = max(radius - abs(a - b), 0.0) / radius
    return max(a, b) + h * h * radius * 0.25


@njit(cache=True)
def _body_distance(x: float, y: float, z: float, b: np.ndarray) -> float:
    """Kidney-shaped cylinder with a waist between two hollow end plates (parameters: BODY_NAMES)."""
    z = z - b[19]
    y = y - b[18] - b[17] * z
    s = z / b[2]
    waist = max(1.0 - s * s, -0.5)
    half_width = b[0] * (1.0 - b[3] * waist + b[13] * s)
    half_depth = b[1] * (1.0 - b[4] * waist + b[14] * s)
    u = x / half_width
    v = y / half_depth
    # Bending the cross-section about the canal makes the kidney: the back wall is flat or hollow in the middle.
    if v > 0.0:
        v = v * (1.0 + b[16] * (1.0 - min(u * u, 1.0)))
    v = v - b[6] * (u * u - 0.5)
    n = b[5]
    au, av = abs(u) + 1e-9, abs(v) + 1e-9
    radius = (au**n + av**n) ** (1.0 / n)
    gx = (au / radius) ** (n - 1.0) / half_width
    gy = (av / radius) ** (n - 1.0) / half_depth
    side = (radius - 1.0) / math.sqrt(gx * gx + gy * gy)
    upper = b[2] + b[7] * y - b[9] * math.exp(-1.5 * (u * u + ((y - b[11]) / b[1]) ** 2))
    lower = -b[2] + b[8] * y + b[10] * math.exp(-1.5 * (u * u + ((y - b[12]) / b[1]) ** 2))
    plates = max(z - upper, lower - z)
    return _soft_max(side, plates, b[15] + b[20] * min(u * u, 1.0))


@njit(cache=True)
def _canal_distance(x: float, y: float, z: float, c: np.ndarray) -> float:
    """Vertical prism, rounded triangle in cross-section: wide in front, narrow behind (CANAL_NAMES)."""
    v = (y - c[2] - c[4] * z) / c[1]
    width = c[0] * max(1.0 - c[3] * v, 0.2)
    u = x / width
    radius = (abs(u) ** 2.5 + abs(v) ** 2.5 + 1e-12) ** 0.4
    return (radius - 1.0) * min(width, c[1])


@njit(cache=True)
def _cannot_reach(x: float, y: float, z: float, c: np.ndarray, distance: float) -> bool:
    """Whether the cone lies farther away than `distance` for sure (its bounding ball does)."""
    mx, my, mz = x - 0.5 * (c[0] + c[3]), y - 0.5 * (c[1] + c[4]), z - 0.5 * (c[2] + c[5])
    lx, ly, lz = c[3] - c[0], c[4] - c[1], c[5] - c[2]
    reach = 0.5 * math.sqrt(lx * lx + ly * ly + lz * lz) + max(max(c[6], c[7]), max(c[8], c[9])) + distance
    return reach < 0.0 or mx * mx + my * my + mz * mz > reach * reach


@njit(cache=True)
def field_at(x: float, y: float, z: float, body: np.ndarray, canal: np.ndarray, cones: np.ndarray,
             blend: float) -> float:
    """Field of one vertebra at one point: smooth union of body and cones, minus the canal (mm)."""
    lowest = _body_distance(x, y, z, body)
    total = 1.0
    for i in range(cones.shape[0]):
        if _cannot_reach(x, y, z, cones[i], lowest + 12.0 * blend):
            continue
        d = _cone_distance(x, y, z, cones[i])
        if d < lowest:
            total = total * math.exp((d - lowest) / blend) + 1.0
            lowest = d
        elif d - lowest < 12.0 * blend:
            total += math.exp((lowest - d) / blend)
    solid = lowest - blend * math.log(total)
    return _soft_max(solid, -_canal_distance(x, y, z, canal), 2.0)


@njit(cache=True, parallel=True)
def evaluate(points: np.ndarray, body: np.ndarray, canal: np.ndarray, cones: np.ndarray,
             blend: float) -> np.ndarray:
    """Field (N,) at `points` (N, 3) mm; each point is independent of the others and of the thread count."""
    values = np.empty(points.shape[0])
    for i in prange(points.shape[0]):
        values[i] = field_at(points[i, 0], points[i, 1], points[i, 2], body, canal, cones, blend)
    return values


@njit(cache=True)
def evaluate_few(points: np.ndarray, body: np.ndarray, canal: np.ndarray, cones: np.ndarray,
                 blend: float) -> np.ndarray:
    """As `evaluate`, on one thread: for so few points that starting threads would take longer."""
    values = np.empty(points.shape[0])
    for i in range(points.shape[0]):
        values[i] = field_at(points[i, 0], points[i, 1], points[i, 2], body, canal, cones, blend)
    return values


@njit(cache=True, parallel=True)
def evaluate_grid(origin: np.ndarray, spacing: float, size: np.ndarray, body: np.ndarray, canal: np.ndarray,
                  cones: np.ndarray, blend: float) -> np.ndarray:
    """Field on a regular grid, shape (x, y, z) = `size`.

    Blocks of 4^3 nodes whose centre is far from the surface are filled with that centre's value: only the
    sign matters there.
    """
    values = np.empty((size[0], size[1], size[2]), np.float32)
    block = 4
    nx, ny, nz = (size[0] + block - 1) // block, (size[1] + block - 1) // block, (size[2] + block - 1) // block
    reach = 3.0 * block * spacing
    for index in prange(nx * ny):
        bx, by = index // ny, index % ny
        for bz in range(nz):
            half = 0.5 * (block - 1)
            centre = field_at(origin[0] + spacing * (bx * block + half), origin[1] + spacing * (by * block + half),
                              origin[2] + spacing * (bz * block + half), body, canal, cones, blend)
            far = abs(centre) > reach
            for i in range(bx * block, min((bx + 1) * block, size[0])):
                for j in range(by * block, min((by + 1) * block, size[1])):
                    for k in range(bz * block, min((bz + 1) * block, size[2])):
                        if far:
                            values[i, j, k] = centre
                        else:
                            values[i, j, k] = field_at(origin[0] + spacing * i, origin[1] + spacing * j,
                                                       origin[2] + spacing * k, body, canal, cones, blend)
    return values
