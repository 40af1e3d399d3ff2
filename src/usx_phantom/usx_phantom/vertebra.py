"""The parametric lumbar vertebra: named anatomical parts, their numbers, and the surface they make.

A vertebra is a body blended with elliptic cones (ten on either side, three in the mid-plane) and cut by the canal.
`VertebraShape` holds the numbers of the left half and of the mid-plane, and the right half mirrored to the left, so
that equal numbers on both sides are a symmetric vertebra.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from usx_phantom.implicit_surface import BODY_NAMES, CANAL_NAMES, evaluate, evaluate_few, evaluate_grid

# Left-sided parts: name -> direction that the first half axis should follow.
PAIRED_PARTS = {
    "pedicle": (0.0, 0.0, 1.0),
    "pars": (1.0, 0.0, 0.0),
    "lamina": (0.0, 0.0, 1.0),
    "transverse_root": (0.0, 0.0, 1.0),
    "transverse_tip": (0.0, 0.0, 1.0),
    "superior_root": (1.0, 0.0, 0.0),
    "superior_tip": (1.0, 0.0, 0.0),
    "inferior_root": (1.0, 0.0, 0.0),
    "inferior_tip": (1.0, 0.0, 0.0),
    "mammillary": (0.0, 0.0, 1.0),
}
MIDLINE_PARTS = {
    "spinous_root": (0.0, 0.0, 1.0),
    "spinous_middle": (0.0, 0.0, 1.0),
    "spinous_tip": (0.0, 0.0, 1.0),
}
PARTS = {**PAIRED_PARTS, **MIDLINE_PARTS}
# Columns of a part: start (3), end (3), half axes (start e1, start e2, end e1, end e2), turn of e1 (rad).
PART_COLUMNS = 11


@dataclass(frozen=True)
class Solid:
    """Arrays the field kernels take; all mm. `cones` (C, 13)."""

    body: np.ndarray
    canal: np.ndarray
    cones: np.ndarray
    blend: float

    def field(self, points: np.ndarray) -> np.ndarray:
        """Field (N,) mm, negative inside, at `points` (N, 3) in the vertebra's frame."""
        kernel = evaluate if len(points) > 2000 else evaluate_few
        return kernel(np.ascontiguousarray(points, float), self.body, self.canal, self.cones, self.blend)

    def grid(self, origin: np.ndarray, spacing: float, size: tuple[int, int, int]) -> np.ndarray:
        """Field on a grid, shape `size` = (x, y, z)."""
        return evaluate_grid(np.asarray(origin, float), float(spacing), np.asarray(size, np.int64), self.body,
                             self.canal, self.cones, self.blend)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners of a box that surely holds the surface, 3 mm to spare."""
        reach = self.cones[:, 6:10].max(1)[:, None] + 3.0 + 2.0 * self.blend
        ends = np.concatenate([self.cones[:, 0:3] - reach, self.cones[:, 3:6] - reach,
                               self.cones[:, 0:3] + reach, self.cones[:, 3:6] + reach])
        body = np.array([self.body[0] * 1.25, self.body[1] * 1.45, self.body[2] * 1.6]) + 3.0
        centre = np.array([0.0, self.body[18], self.body[19]])
        return np.minimum(ends.min(0), centre - body), np.maximum(ends.max(0), centre + body)


@dataclass(frozen=True)
class VertebraShape:
    """Numbers of one vertebra (mm, rad, its own frame): `body` (21,), `canal` (5,), `parts` (13, 11), `blend`.

    `right`: (10, 11) the paired parts of the right side, mirrored to the left; None = as on the left.
    """

    body: np.ndarray
    canal: np.ndarray
    parts: np.ndarray
    blend: float = 1.5
    right: np.ndarray | None = None

    def part(self, name: str) -> np.ndarray:
        """Row of the named part (a view)."""
        return self.parts[list(PARTS).index(name)]

    def vector(self) -> np.ndarray:
        """All numbers in one row, for fitting and for tables."""
        return np.concatenate([self.body, self.canal, self.parts.ravel(), [self.blend]])

    @staticmethod
    def from_vector(vector: np.ndarray) -> VertebraShape:
        """The inverse of `vector`."""
        vector = np.asarray(vector, float)
        nb, nc = len(BODY_NAMES), len(CANAL_NAMES)
        parts = vector[nb + nc:-1].reshape(len(PARTS), PART_COLUMNS)
        return VertebraShape(vector[:nb].copy(), vector[nb:nb + nc].copy(), parts.copy(), float(vector[-1]))

    def solid(self) -> Solid:
        """The blended solid; paired parts appear on both sides."""
        cones = _cones(self.parts)
        right = self.parts[: len(PAIRED_PARTS)] if self.right is None else self.right
        mirrored = _cones(right) * np.array([-1, 1, 1, -1, 1, 1, 1, 1, 1, 1, -1, 1, 1.0])
        return Solid(self.body, self.canal, np.concatenate([cones, mirrored]), self.blend)


def _cones(parts: np.ndarray) -> np.ndarray:
    start, end = parts[:, 0:3], parts[:, 3:6]
    axis = end - start
    axis = axis / np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-9)
    hint = np.array(list(PARTS.values()))[: len(parts)]
    e1 = hint - (hint * axis).sum(1, keepdims=True) * axis
    e1 /= np.maximum(np.linalg.norm(e1, axis=1, keepdims=True), 1e-9)
    e2 = np.cross(axis, e1)
    turn = parts[:, 10:11]
    e1 = np.cos(turn) * e1 + np.sin(turn) * e2
    return np.concatenate([start, end, np.maximum(parts[:, 6:10], 0.8), e1], axis=1)


def first_guess() -> VertebraShape:
    """A hand-made third lumbar vertebra from which fits start (mm)."""
    body = np.array([24, 17, 14.5, .08, .05, 2.3, .12, 0, 0, 1.5, 1.5, 1, 1, 0, 0, 4, .1, 0, 0, 0, 0.0])
    canal = np.array([11.5, 8, 24, .35, 0])
    rows = {
        "pedicle": (14, 12, 6, 17, 26, 5, 7, 4.5, 7, 4.5, 0),
        "pars": (16, 28, 3, 14, 36, -12, 6, 4, 6, 4, 0),
        "lamina": (13, 33, -2, 3, 41, -5, 9, 3, 9, 3, 0),
        "transverse_root": (18, 26, 4, 30, 30, 4, 5, 4, 5, 3, 0),
        "transverse_tip": (30, 30, 4, 45, 35, 5, 5, 3, 5, 3, 0),
        "superior_root": (17, 27, 5, 18, 31, 12, 5, 6, 5, 6, 0),
        "superior_tip": (18, 31, 12, 19, 34, 19, 4, 6, 3, 5, 0),
        "inferior_root": (14, 36, -10, 13, 37, -18, 6, 4.5, 6, 4.5, 0),
        "inferior_tip": (13, 37, -18, 13, 38, -26, 6, 4.5, 4.5, 3.5, 0),
        "mammillary": (20, 33, 9, 21, 37, 10, 4, 3, 4, 3, 0),
        "spinous_root": (0, 38, -4, 0, 50, -7, 8, 4, 9, 3, 0),
        "spinous_middle": (0, 50, -7, 0, 61, -9, 9, 3, 10, 3, 0),
        "spinous_tip": (0, 61, -9, 0, 66, -10, 10, 3, 9, 4, 0),
    }
    return VertebraShape(body, canal, np.array([rows[name] for name in PARTS], float))


@dataclass(frozen=True)
class MeanVertebra:
    """The mean of a level and where it stands in the mean spine: body centre (y, z) mm and tilt (rad) about x.

    A positive tilt lifts the posterior side: the end plates face forward, as at L5.
    """

    shape: VertebraShape
    centre: tuple[float, float]
    tilt: float


@cache
def mean_vertebra(level: str) -> MeanVertebra:
    """Mean vertebra of `level` ("L1".."L5"): L2..L5 fitted (data/mean_shapes.json), L1 scaled from L2.

    The scale factors L1 : L2 are the published ratios: end-plate width and transverse span by CT of 711 people
    (CTSpinoPelvic1K), anterior and posterior heights by Bonczar 2024, canal by Panjabi 1992.
    """
    if level == "L1":
        return _first_lumbar(mean_vertebra("L2"))
    return read_mean_shapes(Path(__file__).parent / "data" / "mean_shapes.json")[level]


def read_mean_shapes(path: Path) -> dict[str, MeanVertebra]:
    """Level -> mean vertebra of a file that fit_mean_shapes wrote."""
    found = {}
    for level, table in json.loads(path.read_text())["levels"].items():
        parts = np.array([table["parts"][name] for name in PARTS], float)
        shape = VertebraShape(np.array([table["body"][name] for name in BODY_NAMES], float),
                              np.array([table["canal"][name] for name in CANAL_NAMES], float), parts, table["blend"])
        found[level] = MeanVertebra(shape, tuple(table["centre"]), float(np.radians(table["tilt_deg"])))
    return found


def _first_lumbar(second: MeanVertebra) -> MeanVertebra:
    body = second.shape.body.copy()
    body[[0, 1, 2]] *= (40.93 / 42.32, 0.975, 25.6 / 26.4)
    # Anterior wall lower than the posterior one: ratio 0.97 at L1 against 1.00 at L2.
    body[[7, 8]] += (0.012, -0.012)
    parts = second.shape.parts.copy()
    parts[:, [0, 3]] *= 23.7 / 23.8 * 0.985
    parts[:, [1, 4]] *= 0.975
    parts[:, [2, 5]] *= 0.97
    parts[:, 6:10] *= 0.97
    shape = VertebraShape(body, second.shape.canal * (0.99, 0.99, 0.975, 1, 1), parts, second.shape.blend)
    tip = shape.part("transverse_tip")
    tip[3] *= 73.03 / 81.55 / 0.985
    tip[4] += 1.0
    return MeanVertebra(shape, (second.centre[0] + 4.5, second.centre[1] + 34.0), second.tilt - np.radians(4.5))
