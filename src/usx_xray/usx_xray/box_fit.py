"""Where a vertebral body may lie: rectangles around a seed whose four sides lie on edges of the image.

Exhaustive over position, size and angle: the score of a side is the mean of the outward darkening along it, read from
running sums, so that half a million rectangles per angle cost a few milliseconds. Prior sizes are those of lumbar
bodies on lateral views (Gilad & Nissan 1985, Bonczar 2024): depth 35 mm, height 27 mm.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from usx_xray.patches import Patch, PlaneImage, edge_patch, patch_axes

WORTH_KEEPING = 0.6
MOST_OF_ANGLE = 1000
"""Rectangles this much worse than the best of their angle are not looked at further, nor are more than so many."""
EDGE_STEP = 0.5
"""Pixel of the patches in which edges are looked for, mm."""


@dataclass(frozen=True)
class BoxPrior:
    """What is known before looking, mm and rad; ``*_sigma`` are one standard deviation, weights are in units of the
    mean edge score of one side (-1 .. 1). ``tolerance``: how far an edge may lie off its side; ``wall`` is the distance
    from the outer to the inner edge of a bony wall, ``wall_weight`` what the inner one counts."""

    depth: float = 35.0
    depth_sigma: float = 4.5
    height: float = 27.0
    height_sigma: float = 3.5
    click_sigma: float = 4.5
    angle_sigma: float = float(np.radians(15.0))
    weight: float = 0.15
    end_plate_weight: float = 1.3
    wall: float = 1.5
    wall_weight: float = 0.3
    tolerance: float = 1.0


@dataclass(frozen=True)
class BoxSearch:
    """Range and resolution of the search, mm and rad."""

    shift: float = 9.0
    depths: tuple[float, float] = (24.0, 46.0)
    heights: tuple[float, float] = (15.0, 37.0)
    step: float = 2.0
    corner: float = 3.0
    angles: NDArray[np.float64] = field(default_factory=lambda: np.radians(np.arange(-28.0, 28.1, 4.0)))
    kept: int = 16


@dataclass(frozen=True)
class Box:
    """A rectangle on the mid plane: ``centre`` (2,) mm; ``axes`` (2, 2) rows u (depth), v (along the spine); full
    ``depth`` and ``height`` mm; ``score`` of the data and of the prior together."""

    centre: NDArray[np.float64]
    axes: NDArray[np.float64]
    depth: float
    height: float
    score: float

    @property
    def corners(self) -> NDArray[np.float64]:
        """(4, 2) corners in turn."""
        signs = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]) / 2.0
        return self.centre + (signs * [self.depth, self.height]) @ self.axes


def candidate_boxes(image: PlaneImage, seed: NDArray, axis: NDArray, polarity: float = 1.0,
                    prior: BoxPrior | None = None, search: BoxSearch | None = None) -> list[Box]:
    """The best rectangles around ``seed`` (2,), mm on the mid plane, that differ from one another, best first.

    ``image`` is blurred by EDGE_SCALE_MM; ``axis`` (2,) is the spine's direction; ``polarity`` is 1 where bone is
    bright, -1 where it is dark.
    """
    prior, search = prior or BoxPrior(), search or BoxSearch()
    half = search.shift + max(search.depths[1], search.heights[1]) / 2.0 + search.step
    found: list[tuple[float, int, NDArray]] = []
    for number, angle in enumerate(search.angles):
        axes = patch_axes(axis, angle)
        patch = edge_patch(image, seed, axes, half, EDGE_STEP)
        scores = _scores(patch, polarity, prior, search) - prior.weight * (angle / prior.angle_sigma) ** 2
        best = np.flatnonzero(scores > scores.max() - WORTH_KEEPING)
        if len(best) > MOST_OF_ANGLE:
            best = best[np.argpartition(scores.flat[best], -MOST_OF_ANGLE)[-MOST_OF_ANGLE:]]
        found += zip(scores.flat[best].tolist(), itertools.repeat(number), _sides(best, search), strict=False)
    found.sort(key=lambda item: -item[0])
    return [_box(seed, axis, search.angles[number], sides, score)
            for score, number, sides in _different(found, search)]


def _scores(patch: Patch, polarity: float, prior: BoxPrior, search: BoxSearch) -> NDArray[np.float32]:
    """Scores of all rectangles of one angle, over (low side in u, high side in u, low in v, high in v)."""
    low_u, high_u = _side_positions(search.depths, search)
    low_v, high_v = _side_positions(search.heights, search)
    # Bone is bright: the image rises on entering a low side and falls on leaving a high one.
    along_u, along_v = patch.along_u.T * polarity, patch.along_v * polarity
    top = _side_means(_walls(along_v, 1, patch.step, prior), low_v, low_u, high_u, patch, search.corner)
    bottom = _side_means(_walls(along_v, -1, patch.step, prior), high_v, low_u, high_u, patch, search.corner)
    left = _side_means(_walls(along_u, 1, patch.step, prior), low_u, low_v, high_v, patch, search.corner)
    right = _side_means(_walls(along_u, -1, patch.step, prior), high_u, low_v, high_v, patch, search.corner)
    penalty_u = _extent_prior(low_u, high_u, prior.depth, prior.depth_sigma, prior.click_sigma, search.depths)
    penalty_v = _extent_prior(low_v, high_v, prior.height, prior.height_sigma, prior.click_sigma, search.heights)
    weight = prior.end_plate_weight
    total = left[:, None, :, :] + right[None, :, :, :]
    total += weight * top.transpose(1, 2, 0)[:, :, :, None] - prior.weight * penalty_u[:, :, None, None]
    total += weight * bottom.transpose(1, 2, 0)[:, :, None, :] - prior.weight * penalty_v[None, None, :, :]
    return total


def _walls(rises: NDArray, inwards: int, step: float, prior: BoxPrior) -> NDArray[np.float32]:
    """Evidence (n, n) that a side lies on a row: the image rises inwards (``inwards`` 1 down the rows, -1 up), and
    falls again behind a wall of compact bone, which is all that is seen of the posterior wall before the pedicles.

    The best within the tolerance counts: the rectangles are coarse, and real sides are hollow and not at right angles.
    """
    rises = rises * inwards
    falls = -np.roll(rises, -inwards * round(prior.wall / step), axis=0)  # what comes round is far from any such side
    walls = rises + prior.wall_weight * np.maximum(falls, 0.0)
    return np.asarray(cv2.dilate(walls, np.ones((2 * round(prior.tolerance / step) + 1, 1), np.uint8)), np.float32)


def _sides(flat: NDArray, search: BoxSearch) -> NDArray[np.float64]:
    """(M, 4) sides (u low, u high, v low, v high), mm, of places in the flattened table of scores."""
    low_u, high_u = _side_positions(search.depths, search)
    low_v, high_v = _side_positions(search.heights, search)
    where = np.unravel_index(flat, (len(low_u), len(high_u), len(low_v), len(high_v)))
    return np.column_stack([side[index] for side, index in zip((low_u, high_u, low_v, high_v), where, strict=True)])


def _side_positions(extents: tuple[float, float], search: BoxSearch) -> tuple[NDArray, NDArray]:
    high = np.arange(extents[0] / 2.0 - search.shift, extents[1] / 2.0 + search.shift + 1e-9, search.step)
    high = np.round(high / search.step) * search.step
    return -high[::-1], high


def _side_means(edges: NDArray, across: NDArray, low: NDArray, high: NDArray, patch: Patch,
                corner: float) -> NDArray[np.float32]:
    """(A, L, H) mean of ``edges`` along the line at ``across`` (rows of edges) from ``low`` to ``high``, both mm."""
    sums = np.pad(np.cumsum(edges, axis=1, dtype=np.float32), ((0, 0), (1, 0)))
    lines = sums[_index(across, patch)]
    begin, end = _index(low + corner, patch), _index(high - corner, patch) + 1
    length = np.maximum(end[None, :] - begin[:, None], 1)
    return (lines[:, None, end] - lines[:, begin, None]) / length


def _index(position: NDArray, patch: Patch) -> NDArray[np.int64]:
    return np.rint(position / patch.step).astype(np.int64) + patch.middle


def _extent_prior(low: NDArray, high: NDArray, extent: float, sigma: float, click_sigma: float,
                  allowed: tuple[float, float]) -> NDArray[np.float32]:
    """Penalty (L, H) for an unusual size and for being off the click; prohibitive where the size is not allowed."""
    size = high[None, :] - low[:, None]
    middle = (high[None, :] + low[:, None]) / 2.0
    penalty = ((size - extent) / sigma) ** 2 + (middle / click_sigma) ** 2
    return np.where((size >= allowed[0]) & (size <= allowed[1]), penalty, 1e6).astype(np.float32)


def _different(found: list[tuple[float, int, NDArray]], search: BoxSearch) -> list[tuple[float, int, NDArray]]:
    """The best ones of which no two are nearly the same: each kept one strikes out all that resemble it."""
    numbers = np.array([item[1] for item in found])
    sides = np.array([item[2] for item in found])
    left = np.arange(len(found))
    kept: list[tuple[float, int, NDArray]] = []
    while len(left) and len(kept) < search.kept:
        first = left[0]
        kept.append(found[first])
        moved = np.abs(sides[left] - sides[first]).max(axis=1) >= 2.5
        left = left[moved | (abs(numbers[left] - numbers[first]) >= 2)]
    return kept


def _box(seed: NDArray, axis: NDArray, angle: float, sides: NDArray, score: float) -> Box:
    axes = patch_axes(axis, angle)
    middle = np.array([(sides[0] + sides[1]) / 2.0, (sides[2] + sides[3]) / 2.0])
    return Box(seed + middle @ axes, axes, float(sides[1] - sides[0]), float(sides[3] - sides[2]), score)
