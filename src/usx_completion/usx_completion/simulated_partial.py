"""Partial clouds of known meshes, as ultrasound from behind and one lateral X-ray would give them.

For tests and evaluation only: fast, and simpler than the simulated acquisition of the phantom. The ultrasound part is
what an orthographic view from behind sees of all levels together; levels are split by planes midway between bodies,
so pieces of a neighbour's processes get the wrong label, as they do in practice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.levels import LEVELS, SOURCE_ULTRASOUND, SOURCE_XRAY, label_of_level
from usx_common.meshes import Mesh


@dataclass(frozen=True)
class PartialCloud:
    """What registration hands over: ``points`` (N, 3) mm, frame spine; ``labels`` (N,) 20..24; ``sources`` (N,)."""

    points: NDArray[np.float64]
    labels: NDArray[np.int64]
    sources: NDArray[np.int64]


@dataclass(frozen=True)
class PartialSettings:
    """Pixel sizes and one-sigma errors in mm and degrees; ``seed`` of the noise."""

    pixel_mm: float = 1.0
    steepest_deg: float = 75.0
    depth_limit_mm: float = 60.0
    noise_mm: float = 0.4
    xray_pixel_mm: float = 0.8
    xray_shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    seed: int = 0


def simulate_partial(meshes: Mapping[str, Mesh], settings: PartialSettings | None = None) -> PartialCloud:
    """Partial cloud of a spine's meshes (level name -> Mesh, mm, frame spine, LPS).

    Raises UsxError when a mesh has no vertebral canal to tell its body from its arch.
    """
    settings = settings or PartialSettings()
    random = np.random.default_rng(settings.seed)
    seen = visible_from_behind(list(meshes.values()), settings)
    seen = seen + random.normal(0.0, settings.noise_mm, seen.shape)
    walls = {level: posterior_wall(mesh) for level, mesh in meshes.items()}
    labels = _labels_by_height(seen, meshes, walls)
    points, all_labels = [seen], [labels]
    midline = float(np.median(seen[:, 0]))
    for level, mesh in meshes.items():
        filled = body_silhouette(mesh, walls[level], settings.xray_pixel_mm)
        cloud = np.column_stack([np.full(len(filled), midline), filled]) + np.asarray(settings.xray_shift_mm)
        points.append(cloud)
        all_labels.append(np.full(len(cloud), label_of_level(level)))
    sources = np.full(sum(map(len, points)), SOURCE_XRAY)
    sources[: len(seen)] = SOURCE_ULTRASOUND
    return PartialCloud(np.concatenate(points), np.concatenate(all_labels), sources)


def visible_from_behind(meshes: list[Mesh], settings: PartialSettings) -> NDArray[np.float64]:
    """(N, 3) first hits of parallel rays that look along -y (anterior) on the joint surface, mm.

    Left out: surface steeper than ``steepest_deg`` to the ray's plane, and deeper than ``depth_limit_mm`` below the
    most posterior point, where the beam does not reach.
    """
    vertices = np.concatenate([mesh.vertices for mesh in meshes])
    offsets = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    faces = np.concatenate([mesh.faces + offset for mesh, offset in zip(meshes, offsets, strict=False)])
    low = vertices.min(axis=0)[[0, 2]] - settings.pixel_mm
    size = np.ceil((vertices.max(axis=0)[[0, 2]] - low) / settings.pixel_mm).astype(int) + 2
    pixels = np.column_stack([(vertices[:, [0, 2]] - low) / settings.pixel_mm, vertices[:, 1]])
    depth, face = _depth_buffer(np.ascontiguousarray(pixels), faces, int(size[0]), int(size[1]))
    column, row = np.nonzero(face >= 0)
    corners = vertices[faces[face[column, row]]]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    cosine = normals[:, 1] / np.maximum(np.linalg.norm(normals, axis=1), 1e-12)
    y = depth[column, row]
    keep = (cosine > np.cos(np.radians(settings.steepest_deg))) & (y > y.max() - settings.depth_limit_mm)
    points = np.column_stack([column * settings.pixel_mm + low[0], y, row * settings.pixel_mm + low[1]])
    return points[keep]


@dataclass(frozen=True)
class PosteriorWall:
    """Back of a vertebral body near the midline: the plane y = ``offset`` + ``slope`` z, mm, axes LPS."""

    offset: float
    slope: float

    def behind(self, points: NDArray) -> NDArray[np.float64]:
        """(N,) how far along y each point lies behind the wall, mm; negative in front."""
        return points[:, 1] - self.offset - self.slope * points[:, 2]


def posterior_wall(mesh: Mesh, half_width_mm: float = 4.0, smallest_canal_mm: float = 7.0) -> PosteriorWall:
    """The front edge of the vertebral canal: the plane through the front edges of its gaps at several heights.

    At each height the canal is the most anterior empty gap along y between the vertices near the sagittal plane, in
    the middle of the mesh's depth (further in front lies the hollow of an endplate, further behind the space between
    laminae). Raises UsxError when no gap is as wide as ``smallest_canal_mm``.
    """
    x, z = mesh.vertices[:, 0], mesh.vertices[:, 2]
    centre, low, height = 0.5 * (x.min() + x.max()), z.min(), z.max() - z.min()
    edges: list[tuple[float, float, float]] = []
    for middle in centre + np.array([0.0, -4.0, 4.0, -8.0, 8.0, -12.0, 12.0]):
        in_plane = np.abs(x - middle) < half_width_mm
        for level in low + height * np.linspace(0.3, 0.9, 16):
            edge = _canal_edge(mesh, in_plane & (np.abs(z - level) < 2.0), (middle, level), smallest_canal_mm)
            if edge is not None:
                edges.append((level, *edge))
        if len(edges) >= 3:
            break
    if not edges:
        raise UsxError("no vertebral canal found; is y posterior and z cranial?")
    heights, walls, gaps = np.asarray(edges).T
    trusted = gaps > 0.6 * gaps.max()
    middle_height = heights[trusted].mean()
    slope = 0.0
    if trusted.sum() >= 4:
        slope = float(np.clip(np.polyfit(heights[trusted], walls[trusted], 1)[0], -0.7, 0.7))
    offset = float(np.median(walls[trusted] - slope * (heights[trusted] - middle_height)))
    return PosteriorWall(offset - slope * middle_height, slope)


def _canal_edge(mesh: Mesh, rows: NDArray, place: tuple[float, float], smallest: float) -> tuple[float, float] | None:
    """y of the front edge and width of the canal's gap among the vertices ``rows``; None when there is none."""
    y = np.sort(mesh.vertices[rows, 1])
    front, back = np.quantile(mesh.vertices[:, 1], (0.0, 1.0))
    gaps, insides = np.diff(y), 0.5 * (y[1:] + y[:-1])
    central = (insides > front + 0.38 * (back - front)) & (insides < front + 0.70 * (back - front))
    for index in np.flatnonzero((gaps > smallest) & central):
        if _outside(mesh, np.array([place[0], insides[index], place[1]])):
            return float(y[index]), float(gaps[index])
    return None


def body_silhouette(mesh: Mesh, wall: PosteriorWall, pixel_mm: float) -> NDArray[np.float64]:
    """(N, 2) points (y, z) in mm filling the left-right projection of the body, which ends behind at its ``wall``."""
    body = np.all(wall.behind(mesh.vertices)[mesh.faces] <= 1.0, axis=1)
    vertices = mesh.vertices
    low = vertices.min(axis=0)[1:] - pixel_mm
    size = np.ceil((vertices.max(axis=0)[1:] - low) / pixel_mm).astype(int) + 2
    pixels = np.column_stack([(vertices[:, 1:] - low) / pixel_mm, vertices[:, 0]])
    _, face = _depth_buffer(np.ascontiguousarray(pixels), mesh.faces[body], int(size[0]), int(size[1]))
    return np.argwhere(face >= 0) * pixel_mm + low


def _outside(mesh: Mesh, point: NDArray) -> bool:
    """Whether a point is outside a closed mesh, by the generalised winding number (Jacobson et al. 2013)."""
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces] - point, 1, 0)
    la, lb, lc = (np.linalg.norm(v, axis=1) for v in (a, b, c))
    numerator = np.einsum("ni,ni->n", a, np.cross(b, c))
    dots = la * lb * lc + np.sum(a * b, 1) * lc + np.sum(b * c, 1) * la + np.sum(c * a, 1) * lb
    return bool(abs(np.arctan2(numerator, dots).sum() / (2.0 * np.pi)) < 0.5)


def _labels_by_height(points: NDArray, meshes: Mapping[str, Mesh], walls: Mapping[str, PosteriorWall]
                      ) -> NDArray[np.int64]:
    """Label of the level whose slab along z holds the point; slabs meet midway between neighbouring arches."""
    names = [level for level in LEVELS if level in meshes]
    arches = (meshes[name].vertices[walls[name].behind(meshes[name].vertices) > 5.0, 2] for name in names)
    heights = np.asarray([arch.mean() for arch in arches])
    borders = 0.5 * (heights[:-1] + heights[1:])
    index = np.sum(points[:, 2, None] < borders[None, :], axis=1)
    return np.asarray([label_of_level(name) for name in names])[index]


@numba.njit(cache=True, error_model="numpy")
def _depth_buffer(pixels: NDArray, faces: NDArray, columns: int, rows: int
                  ) -> tuple[NDArray, NDArray]:  # pragma: no cover - compiled
    """Largest third coordinate per pixel (first two are pixel coordinates) and the face it lies on (-1: none)."""
    depth = np.full((columns, rows), -np.inf)
    owner = np.full((columns, rows), -1, np.int64)
    for f in range(len(faces)):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, az = pixels[i, 0], pixels[i, 1], pixels[i, 2]
        bx, by, bz = pixels[j, 0], pixels[j, 1], pixels[j, 2]
        cx, cy, cz = pixels[k, 0], pixels[k, 1], pixels[k, 2]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0.0:
            continue
        for column in range(max(0, int(np.ceil(min(ax, bx, cx)))), min(columns - 1, int(max(ax, bx, cx))) + 1):
            for row in range(max(0, int(np.ceil(min(ay, by, cy)))), min(rows - 1, int(max(ay, by, cy))) + 1):
                v = ((column - ax) * (cy - ay) - (row - ay) * (cx - ax)) / area
                w = ((bx - ax) * (row - ay) - (by - ay) * (column - ax)) / area
                if v >= 0.0 and w >= 0.0 and v + w <= 1.0:
                    value = (1.0 - v - w) * az + v * bz + w * cz
                    if value > depth[column, row]:
                        depth[column, row] = value
                        owner[column, row] = f
    return depth, owner
