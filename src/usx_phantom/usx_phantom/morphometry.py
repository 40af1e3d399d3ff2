"""Measures of a lumbar vertebra taken from its mesh, as anatomists and radiologists define them (mm).

Every measure is read from plane sections of the surface, never from the numbers that made it, so that sampled and
real vertebrae are measured alike. Frames: LPS (x = left, y = posterior, z = cranial).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from usx_common import transforms
from usx_common.errors import UsxError
from usx_common.meshes import Mesh, sample_surface
from usx_phantom.plane_sections import Section, section
from usx_phantom.shape_comparison import mean_surface_distance

# name -> what is measured
MEASURES = {
    "endplate_width_superior": "greatest width of the upper end plate, rim to rim",
    "endplate_width_inferior": "greatest width of the lower end plate, rim to rim",
    "endplate_depth_superior": "depth of the upper end plate in the mid-plane, corner to corner",
    "endplate_depth_inferior": "depth of the lower end plate in the mid-plane, corner to corner",
    "body_height_anterior": "height of the body in the mid-plane between its anterior corners",
    "body_height_posterior": "height of the body in the mid-plane between its posterior corners",
    "canal_width": "greatest distance between the pedicles, at half their height",
    "canal_depth": "least distance of the arch from the body in the mid-plane",
    "pedicle_width": "least width of the pedicle across its axis at half its height, mean of both sides",
    "transverse_span": "tip to tip of the transverse processes",
    "spinous_length": "back wall of the body to the tip of the spinous process",
}
# Measures between neighbours; the level is that of both, as in L1-L2.
SPINE_MEASURES = {
    "disc_height": "mean of anterior, middle and posterior height between the end plates in the mid-plane",
    "body_spacing": "distance of the middles of neighbouring bodies",
}
_PEDICLE_RAY, _PEDICLE_REACH = np.radians(-12.0), 22.0
# A corner is where the outline, scaled to a square of half side 1, lies within this much of its farthest diagonal.
_CORNER = 0.025
_RAYS, _JUMP = np.radians(np.arange(-80.0, 6.0, 2.5)), 3.0


@dataclass(frozen=True)
class Body:
    """The body in the mid-plane section: outline (N, 2) and its corners (2,), all (y, z) mm in the frame measured."""

    outline: np.ndarray
    corners: dict[str, np.ndarray]

    @property
    def height(self) -> float:
        """Mean of anterior and posterior height (mm)."""
        c = self.corners
        return float(0.5 * (np.linalg.norm(c["SA"] - c["IA"]) + np.linalg.norm(c["SP"] - c["IP"])))

    @property
    def back_wall(self) -> float:
        """y (mm) of the middle of the back wall at half its height."""
        middle = 0.5 * (self.corners["SP"] + self.corners["IP"])
        near = np.abs(self.outline[:, 1] - middle[1]) < 0.25 * self.height
        behind = self.outline[near & (self.outline[:, 0] > self.outline[:, 0].mean()), 0]
        return float(np.median(behind)) if len(behind) else float(middle[0])


def mirror_fit(mesh: Mesh, points: int = 1500, steps: int = 16) -> np.ndarray:
    """Rigid (4, 4) that lays the mirror image of `mesh` (x -> -x) best on `mesh` (closest points both ways)."""
    target = sample_surface(mesh, points, seed=11)
    middle = 0.5 * (mesh.vertices[:, 0].min() + mesh.vertices[:, 0].max())
    source = target * (-1.0, 1.0, 1.0)
    tree, total = cKDTree(target), np.eye(4)
    total[0, 3] = 2.0 * middle
    for _ in range(steps):
        now = transforms.apply(total, source)
        forth, back = tree.query(now)[1], cKDTree(now).query(target)[1]
        step = _rigid(np.concatenate([now, now[back]]), np.concatenate([target[forth], target]))
        total = step @ total
    return total


def _rigid(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(4, 4) rigid of least squared distance from points `a` (N, 3) to `b` (N, 3)."""
    turn = Rotation.align_vectors(b - b.mean(0), a - a.mean(0))[0].as_matrix()
    return transforms.make_transform(turn, b.mean(0) - turn @ a.mean(0))


def asymmetry(mesh: Mesh) -> float:
    """Mean symmetric surface distance (mm) of a mesh to its own mirror image, laid on it rigidly."""
    mirrored = mesh.transformed(np.diag([-1.0, 1.0, 1.0, 1.0])).transformed(mirror_fit(mesh))
    return mean_surface_distance(mirrored, mesh, 15000, 2500)


def anatomical_frame(mesh: Mesh) -> np.ndarray:
    """(4, 4) from the mesh's frame (roughly LPS) to its own: x = 0 the plane of symmetry, z across the end plates.

    The origin is the middle of the body's four corners. Raises UsxError where the mid-plane does not show a body
    before a canal.
    """
    to_mirror = mirror_fit(mesh)
    reflection = to_mirror[:3, :3] @ np.diag([-1.0, 1.0, 1.0])
    values, vectors = np.linalg.eigh(0.5 * (reflection + reflection.T))
    normal = vectors[:, np.argmin(values)]
    normal = normal * np.sign(normal[0])
    inside = 0.5 * to_mirror[:3, 3] + 0.5 * (np.eye(3) + reflection) @ mesh.vertices.mean(0)
    turn, _ = Rotation.align_vectors([[1.0, 0.0, 0.0]], [normal])
    frame = transforms.make_transform(turn.as_matrix(), -turn.as_matrix() @ inside)
    for _ in range(4):
        body = find_body(section(mesh.transformed(frame), 0, 0.0))
        c = body.corners
        across = (c["SP"] - c["SA"]) / np.linalg.norm(c["SP"] - c["SA"]) \
            + (c["IP"] - c["IA"]) / np.linalg.norm(c["IP"] - c["IA"])
        back = Rotation.from_euler("x", -np.arctan2(across[1], across[0])).as_matrix()
        middle = np.array([0.0, *np.mean(list(c.values()), axis=0)])
        frame = transforms.make_transform(back, -back @ middle) @ frame
    return frame


def find_body(mid_plane: Section) -> Body:
    """The body in a mid-plane section: the foremost large outline. Raises UsxError where no canal parts it."""
    sizes = [(number, np.ptp(mid_plane.piece(number), axis=0)) for number in np.unique(mid_plane.pieces)]
    large = [number for number, size in sizes if size.max() > 12.0]
    if len(large) < 2:
        raise UsxError("the mid-plane section of the mesh shows no body parted from a spinous process by a canal: "
                       "the mesh is no whole vertebra, or its axes are not LPS")
    outline = min((mid_plane.piece(number) for number in large), key=lambda points: float(points[:, 0].mean()))
    middle = 0.5 * (outline.min(0) + outline.max(0))
    half = 0.5 * np.ptp(outline, axis=0)
    unit = (outline - middle) / half
    signs = {"SA": (-1, 1), "SP": (1, 1), "IA": (-1, -1), "IP": (1, -1)}
    return Body(outline, {name: _corner(outline, unit, sign) for name, sign in signs.items()})


def _corner(outline: np.ndarray, unit: np.ndarray, sign: tuple[float, float]) -> np.ndarray:
    """Mean of the outline's points (N, 2) that lie farthest along a diagonal; `unit`: the same scaled to a square."""
    support = unit @ np.asarray(sign, float)
    return np.asarray(outline[support >= support.max() - _CORNER].mean(0))


@dataclass(frozen=True)
class Examination:
    """What one vertebra's mesh gives: `values` (`MEASURES`, mm) and `landmarks`, (3,) mm in the mesh's frame.

    Landmarks: the body's corners SA, SP, IA, IP and the middles of its end plates SM, IM, all in its mid-plane.
    """

    values: dict[str, float]
    landmarks: dict[str, np.ndarray]


def measure(mesh: Mesh) -> dict[str, float]:
    """The measures of `MEASURES` (mm) of one vertebra in a frame that is roughly LPS; see `examine`."""
    return examine(mesh).values


def measure_spine(found: dict[str, Examination]) -> dict[tuple[str, str], float]:
    """(measure, level) -> mm for all measures of the vertebrae L1.. and, between neighbours, of `SPINE_MEASURES`."""
    result = {(name, level): value for level, one in found.items() for name, value in one.values.items()}
    for upper, lower in pairwise(found):
        above, below = found[upper].landmarks, found[lower].landmarks
        name = f"{upper}-{lower}"
        gaps = [np.linalg.norm(above[f"I{place}"] - below[f"S{place}"]) for place in "AMP"]
        result["disc_height", name] = float(np.mean(gaps))
        middles = [np.mean([one[corner] for corner in ("SA", "SP", "IA", "IP")], axis=0) for one in (above, below)]
        result["body_spacing", name] = float(np.linalg.norm(middles[0] - middles[1]))
    return result


def examine(mesh: Mesh) -> Examination:
    """Measures and landmarks of one vertebra in a frame that is roughly LPS.

    Raises UsxError where the mesh is no whole vertebra: no canal, no pedicles, no arch.
    """
    frame = anatomical_frame(mesh)
    own = mesh.transformed(frame)
    mid_plane = section(own, 0, 0.0)
    body = find_body(mid_plane)
    places = {**body.corners, "SM": _plate_middle(body, 1.0), "IM": _plate_middle(body, -1.0)}
    back = transforms.invert(frame)
    landmarks = {name: transforms.apply(back, np.array([[0.0, *place]]))[0] for name, place in places.items()}
    return Examination(_values(own, mid_plane, body), landmarks)


def _values(own: Mesh, mid_plane: Section, body: Body) -> dict[str, float]:
    c = body.corners
    found: dict[str, float] = {
        "endplate_width_superior": _plate_width(own, body, 1.0),
        "endplate_width_inferior": _plate_width(own, body, -1.0),
        "endplate_depth_superior": float(np.linalg.norm(c["SA"] - c["SP"])),
        "endplate_depth_inferior": float(np.linalg.norm(c["IA"] - c["IP"])),
        "body_height_anterior": float(np.linalg.norm(c["SA"] - c["IA"])),
        "body_height_posterior": float(np.linalg.norm(c["SP"] - c["IP"])),
    }
    found["canal_depth"] = _least_distance(body.outline, _arch(mid_plane, body))
    canal = 0.5 * found["canal_depth"] + body.back_wall
    height = _pedicle_height(own, body, canal)
    walls = [_canal_walls(own, canal, height + shift) for shift in (-1.5, 0.0, 1.5)]
    found["canal_width"], found["pedicle_width"] = np.median(walls, axis=0)
    found["transverse_span"] = float(np.ptp(own.vertices[:, 0]))
    found["spinous_length"] = float(own.vertices[:, 1].max()) - body.back_wall
    return {name: float(found[name]) for name in MEASURES}


def _plate_middle(body: Body, side: float) -> np.ndarray:
    """(y, z) mm of an end plate half way between its corners."""
    front, back = (body.corners[name] for name in (("SA", "SP") if side > 0.0 else ("IA", "IP")))
    y = 0.5 * (front[0] + back[0])
    near = body.outline[(np.abs(body.outline[:, 0] - y) < 2.0) & (side * body.outline[:, 1] > 0.0)]
    return np.array([y, float(np.median(near[:, 1]))]) if len(near) else 0.5 * (front + back)


def _plate_width(own: Mesh, body: Body, side: float) -> float:
    """Greatest distance between the side corners of an end plate, over coronal sections before the pedicles."""
    upper = side > 0.0
    front, back = body.corners["SA" if upper else "IA"], body.corners["SP" if upper else "IP"]
    widths = []
    for share in (0.35, 0.45, 0.55, 0.62):
        outlines = section(own, 1, float(front[0] + share * (back[0] - front[0])))
        pieces = [outlines.piece(number) for number in np.unique(outlines.pieces)]
        pieces = [points for points in pieces if points[:, 0].min() < 0.0 < points[:, 0].max()]
        if pieces:
            points = max(pieces, key=lambda points: float(np.ptp(points[:, 0])))
            unit = points / (0.5 * np.ptp(points[:, 0]), 0.5 * body.height)
            left, right = (_corner(points, unit, (sign, side)) for sign in (1.0, -1.0))
            widths.append(np.linalg.norm(left - right))
    if not widths:
        raise UsxError("the mesh has no end plate where its body ends: it is no whole vertebra")
    return float(max(widths))


def _arch(mid_plane: Section, body: Body) -> np.ndarray:
    behind = [mid_plane.piece(number) for number in np.unique(mid_plane.pieces)]
    behind = [points for points in behind if points[:, 0].mean() > body.outline[:, 0].max()]
    if not behind:
        raise UsxError("the mid-plane section of the mesh shows no arch behind the body")
    return np.concatenate(behind)


def _least_distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(cKDTree(a).query(b)[0].min())


def _pedicle_height(own: Mesh, body: Body, canal: float) -> float:
    """z (mm) of the middle of the pedicles: where a ray from the canal, sideways and a little forward, meets bone."""
    heights = np.arange(-0.5 * body.height, 0.65 * body.height, 1.5)
    outlines = [section(own, 2, float(z)) for z in heights]
    middles = []
    for side in (-1.0, 1.0):
        way = np.array([side * np.cos(_PEDICLE_RAY), np.sin(_PEDICLE_RAY)])
        first = [one.crossings(np.array([0.0, canal]), way)[:1] for one in outlines]
        met = np.array([len(hit) > 0 and hit[0] < _PEDICLE_REACH for hit in first])
        runs = np.split(np.arange(len(met)), np.flatnonzero(np.diff(met.astype(int))) + 1)
        runs = [run for run in runs if met[run[0]]]
        if not runs:
            raise UsxError("the mesh has no pedicles beside the front of its canal: it is no whole vertebra")
        middles.append(heights[max(runs, key=len)].mean())
    return float(np.mean(middles))


def _canal_walls(own: Mesh, canal: float, height: float) -> tuple[float, float]:
    """Width of the canal between the pedicles and width of a pedicle (mean of both sides), at z = `height`.

    Rays from the middle of the canal turn from the body to the side; they have left the pedicle when the wall jumps
    away. The canal reaches as far as the wall that they meet, the pedicle is as wide as its thinnest place.
    """
    outlines, middle = section(own, 2, height), np.array([0.0, canal])
    reach, width = [], []
    for side in (-1.0, 1.0):
        walls: list[tuple[float, float, float]] = []
        for angle in _RAYS:
            hits = outlines.crossings(middle, np.array([side * np.cos(angle), np.sin(angle)]))
            if len(hits) < 2 or (walls and hits[0] > walls[-1][0] + _JUMP):
                break
            walls.append((hits[0], hits[0] * np.cos(angle), hits[1] - hits[0]))
        if not walls:
            raise UsxError("the mesh has no pedicle beside its canal")
        reach.append(max(wall[1] for wall in walls))
        width.append(min(wall[2] for wall in walls))
    return float(sum(reach)), float(np.mean(width))
