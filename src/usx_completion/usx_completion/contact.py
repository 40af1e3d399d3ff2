"""Neighbouring vertebrae that run into each other: poses, then the bones where they touch, give way.

A vertex counts as inside its neighbour when it lies behind the plane of the neighbour's nearest vertex: right to a
fraction of the vertex spacing, and fast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from usx_common.transforms import Matrix, apply, invert, make_transform
from usx_completion.rigid import rotation_matrix

REACH_MM = 5.0
ACROSS = 0  # joints lie side by side along x, so that this order tells most of them apart
MARGIN_MM = 3.0  # poses give way by less than this
TOLERATED_MM = 0.3
# how freely a pose gives way: radians and mm
GIVE = np.array([0.01, 0.01, 0.01, 0.3, 0.3, 0.3])
CONTACT_SD_MM = 2.0
DENT_MM = 3.0  # how far around a contact the bones give way
DENT_REACH_MM = 3.0 * DENT_MM


@dataclass(frozen=True)
class Bone:
    """Points (N, 3) of a vertebra with outward normals, in its own frame, mm, in the order of their x."""

    points: NDArray[np.float64]
    normals: NDArray[np.float64]

    @staticmethod
    def of(points: NDArray, normals: NDArray) -> Bone:
        """A bone of these points."""
        order = np.argsort(points[:, ACROSS], kind="stable")
        return Bone(np.ascontiguousarray(points[order]), normals[order])


@dataclass(frozen=True)
class Contacts:
    """``points`` (N, 3) mm in the frame of the moving vertebra; ``pushes`` (N, 3) unit vectors along which it has to
    move there; ``depths`` (N,) by how many mm."""

    points: NDArray[np.float64]
    pushes: NDArray[np.float64]
    depths: NDArray[np.float64]

    @property
    def deepest(self) -> float:
        """mm; 0 without contact."""
        return float(self.depths.max(initial=0.0))


def near_parts(still: tuple[NDArray, NDArray], moving: tuple[NDArray, NDArray], moving_to_still: Matrix
               ) -> tuple[NDArray, NDArray] | None:
    """Rows of the points of two vertebrae (points and normals (V, 3) each) that may touch; None when none may."""
    moved = apply(moving_to_still, moving[0])
    low = np.maximum(moved.min(axis=0), still[0].min(axis=0)) - MARGIN_MM
    high = np.minimum(moved.max(axis=0), still[0].max(axis=0)) + MARGIN_MM
    here, there = _within(still[0], low, high), _within(moved, low, high)
    if len(here) == 0 or len(there) == 0:
        return None
    here, there = _in_order(still[0], here), _in_order(moved, there)
    reach = REACH_MM + MARGIN_MM
    near_here = _near(still[0][here], moved[there], reach)
    near_there = _near(moved[there], still[0][here], reach)
    return (here[near_here], there[near_there]) if near_here.any() else None


def contacts(still: Bone, moving: Bone, moving_to_still: Matrix) -> Contacts:
    """The vertices of either bone that lie inside the other."""
    still_to_moving = invert(moving_to_still)
    arrived, arrived_depth, arrived_near = _inside(apply(still_to_moving, still.points), moving)
    own, own_depth, own_near = _inside(apply(moving_to_still, moving.points), still)
    return Contacts(
        np.concatenate([apply(still_to_moving, still.points[arrived]), moving.points[own]]),
        np.concatenate([-moving.normals[arrived_near], still.normals[own_near] @ moving_to_still[:3, :3]]),
        np.concatenate([arrived_depth, own_depth]))


def separate(shapes: NDArray, normals: NDArray, poses: NDArray, fixed: int, rounds: int = 5, limit_mm: float = np.inf
             ) -> tuple[NDArray[np.float64], float]:
    """(L, 4, 4) poses at which neighbours touch as little as possible, and how deep (mm) they still touch.

    ``shapes`` and ``normals`` (L, V, 3) in the levels' frames, ``poses`` level to common frame. Each level gives way
    to its neighbour on the side of ``fixed``, and what hangs on it moves with it: Gauss-Newton steps on the squared
    depths, held back by a prior on the change of pose. Where the depth left exceeds ``limit_mm`` the levels beyond are
    left as they are.
    """
    poses, deepest = poses.copy(), 0.0
    order = [(level, level + 1) for level in range(fixed, len(poses) - 1)]
    order += [(level, level - 1) for level in range(fixed, 0, -1)]
    for still, moving in order:
        start = invert(poses[still]) @ poses[moving]
        relative, depth = _give_way((shapes[still], normals[still]), (shapes[moving], normals[moving]), start, rounds)
        deepest = max(deepest, depth)
        if deepest > limit_mm:
            break
        change = poses[still] @ relative @ invert(poses[moving])
        for level in range(moving, len(poses)) if moving > still else range(moving, -1, -1):
            poses[level] = change @ poses[level]
    return poses, deepest


def _give_way(still: tuple[NDArray, NDArray], moving: tuple[NDArray, NDArray], moving_to_still: Matrix, rounds: int
              ) -> tuple[Matrix, float]:
    rows = near_parts(still, moving, moving_to_still)
    if rows is None:
        return moving_to_still, 0.0
    bones = Bone.of(still[0][rows[0]], still[1][rows[0]]), Bone.of(moving[0][rows[1]], moving[1][rows[1]])
    best, least = moving_to_still, np.inf
    for _ in range(rounds):
        found = contacts(*bones, moving_to_still)
        if found.deepest < least:
            best, least = moving_to_still, found.deepest
        if found.deepest <= TOLERATED_MM:
            break
        jacobian = np.concatenate([np.cross(found.points, found.pushes), found.pushes], axis=1)
        weight = 1.0 / CONTACT_SD_MM**2
        system = weight * jacobian.T @ jacobian + np.diag(1.0 / GIVE**2)
        step = np.linalg.solve(system, weight * jacobian.T @ (found.depths + 0.1))
        moving_to_still = moving_to_still @ make_transform(rotation_matrix(step[:3]), step[3:])
    return best, least


def fit_joints(shapes: NDArray, normals: NDArray, poses: NDArray, rounds: int = 4, limit_mm: float = np.inf
               ) -> tuple[NDArray[np.float64], float]:
    """(L, V, 3) shapes whose surfaces draw back by half the depth each where neighbours run into each other.

    The displacement fades over ``DENT_MM``, so that joint surfaces come to fit each other. Also how deep (mm) they
    still touch; where that exceeds ``limit_mm`` the levels above are left as they are. Arguments as of `separate`.
    """
    shapes, deepest = shapes.copy(), 0.0
    for upper in range(len(shapes) - 2, -1, -1):  # from below: the lowest joint is the tightest
        lower = upper + 1
        lower_to_upper = invert(poses[upper]) @ poses[lower]
        found = None
        rows = near_parts((shapes[upper], normals[upper]), (shapes[lower], normals[lower]), lower_to_upper)
        for turn in range(rounds + 1 if rows is not None else 0):
            found = _contacts_of(shapes, normals, upper, rows, lower_to_upper)
            if found.deepest <= TOLERATED_MM or turn == rounds:
                break
            half = 0.5 * (found.depths + 0.1)[:, None] * found.pushes
            shapes[lower] += _dent(shapes[lower], found.points, half)
            shapes[upper] -= _dent(shapes[upper], apply(lower_to_upper, found.points), half @ lower_to_upper[:3, :3].T)
        deepest = max(deepest, found.deepest if found is not None else 0.0)
        if deepest > limit_mm:
            break
    return shapes, deepest


def overlaps(shapes: NDArray, normals: NDArray, poses: NDArray) -> NDArray[np.float64]:
    """(L - 1,) mm that neighbouring levels run into each other; arguments as of `separate`."""
    result = np.zeros(len(shapes) - 1)
    for upper in range(len(shapes) - 1):
        lower_to_upper = invert(poses[upper]) @ poses[upper + 1]
        rows = near_parts((shapes[upper], normals[upper]), (shapes[upper + 1], normals[upper + 1]), lower_to_upper)
        if rows is not None:
            result[upper] = _contacts_of(shapes, normals, upper, rows, lower_to_upper).deepest
    return result


def _contacts_of(shapes: NDArray, normals: NDArray, upper: int, rows: tuple[NDArray, NDArray] | None,
                 lower_to_upper: Matrix) -> Contacts:
    if rows is None:
        return Contacts(np.empty((0, 3)), np.empty((0, 3)), np.empty(0))
    return contacts(Bone.of(shapes[upper][rows[0]], normals[upper][rows[0]]),
                    Bone.of(shapes[upper + 1][rows[1]], normals[upper + 1][rows[1]]), lower_to_upper)


def _dent(points: NDArray, centres: NDArray, pushes: NDArray) -> NDArray[np.float64]:
    """(V, 3) displacements of points that are the mean of the pushes near them and fade farther away."""
    rows = _within(points, centres.min(axis=0) - DENT_REACH_MM, centres.max(axis=0) + DENT_REACH_MM)
    result = np.zeros_like(points)
    _spread(points, rows, np.ascontiguousarray(centres), np.ascontiguousarray(pushes), result)
    return result


def _in_order(points: NDArray, rows: NDArray) -> NDArray[np.int64]:
    return rows[np.argsort(points[rows, ACROSS], kind="stable")]


def _within(points: NDArray, low: NDArray, high: NDArray) -> NDArray[np.int64]:
    x, y, z = points.T
    return np.flatnonzero((z >= low[2]) & (z <= high[2]) & (y >= low[1]) & (y <= high[1])
                          & (x >= low[0]) & (x <= high[0]))


def _inside(points: NDArray, bone: Bone) -> tuple[NDArray, NDArray, NDArray]:
    """Rows of ``points`` that lie inside, how deep (mm), and the row of the bone's point nearest to each."""
    gaps, nearest = _nearest(np.ascontiguousarray(points), bone.points, REACH_MM)
    rows = np.flatnonzero(nearest >= 0)
    nearest = nearest[rows]
    depths = -np.einsum("ni,ni->n", points[rows] - bone.points[nearest], bone.normals[nearest])
    # at an edge the nearest vertex's plane says little: the depth must be most of the distance
    inside = depths > np.maximum(0.3 * gaps[rows], 0.05)
    return rows[inside], depths[inside], nearest[inside]


@numba.njit(cache=True, error_model="numpy")
def _nearest(points: NDArray, surface: NDArray, reach: float) -> tuple[NDArray, NDArray]:  # pragma: no cover - compiled
    """Distance (N,) and row (N,) of the nearest of the surface's points, which are in the order of their x.

    The row is -1 where none is within ``reach``. Search goes up and down from the query's x until x alone is too far:
    for a few hundred points that move at every call this is faster than a tree.
    """
    gaps, rows = np.empty(len(points)), np.full(len(points), -1, np.int64)
    places = surface[:, ACROSS].copy()
    starts = np.searchsorted(places, points[:, ACROSS])
    for i in range(len(points)):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        best = reach * reach
        up, down = starts[i], starts[i] - 1
        going_up, going_down = True, True
        while going_up or going_down:
            if going_up:
                going_up = up < len(surface) and (places[up] - x) ** 2 < best
                if going_up:
                    squared = (places[up] - x) ** 2 + (surface[up, 1] - y) ** 2 + (surface[up, 2] - z) ** 2
                    if squared < best:
                        best, rows[i] = squared, up
                    up += 1
            if going_down:
                going_down = down >= 0 and (places[down] - x) ** 2 < best
                if going_down:
                    squared = (places[down] - x) ** 2 + (surface[down, 1] - y) ** 2 + (surface[down, 2] - z) ** 2
                    if squared < best:
                        best, rows[i] = squared, down
                    down -= 1
        gaps[i] = np.sqrt(best)
    return gaps, rows


@numba.njit(cache=True, error_model="numpy")
def _near(points: NDArray, surface: NDArray, reach: float) -> NDArray:  # pragma: no cover - compiled
    """Whether any of the surface's points, which are in the order of their x, is within ``reach`` of each (N,)."""
    found = np.zeros(len(points), np.bool_)
    places = surface[:, ACROSS].copy()
    starts = np.searchsorted(places, points[:, ACROSS] - reach)
    for i in range(len(points)):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        row = starts[i]
        while row < len(surface) and places[row] <= x + reach:
            squared = (places[row] - x) ** 2 + (surface[row, 1] - y) ** 2 + (surface[row, 2] - z) ** 2
            if squared < reach * reach:
                found[i] = True
                break
            row += 1
    return found


@numba.njit(cache=True, error_model="numpy")
def _spread(points: NDArray, rows: NDArray, centres: NDArray, pushes: NDArray, result: NDArray
            ) -> None:  # pragma: no cover - compiled
    """Writes the displacements of the given rows of ``points`` into ``result``; all else of it stays."""
    for row in rows:
        total, nearest = 0.0, 0.0
        x, y, z = 0.0, 0.0, 0.0
        for k in range(len(centres)):
            squared = ((points[row, 0] - centres[k, 0]) ** 2 + (points[row, 1] - centres[k, 1]) ** 2
                       + (points[row, 2] - centres[k, 2]) ** 2)
            if squared < DENT_REACH_MM**2:
                weight = np.exp(-0.5 * squared / DENT_MM**2)
                total += weight
                nearest = max(nearest, weight)
                x += weight * pushes[k, 0]
                y += weight * pushes[k, 1]
                z += weight * pushes[k, 2]
        if total > 0.0:  # beside a single contact the nearest one counts, among many their mean
            result[row, 0], result[row, 1], result[row, 2] = (nearest / total * x, nearest / total * y,
                                                              nearest / total * z)
