"""From a rectangle to the body's outline: the closed line of strongest outward darkening near it, sub-pixel.

Dynamic programming along normals of a rounded rectangle (an active contour solved exactly: Amini 1990), closed by
fixing the start at the place where the open solution passes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from usx_xray.box_fit import Box
from usx_xray.patches import EDGE_SCALE_MM, PlaneImage, edge_strength


@dataclass(frozen=True)
class OutlineSettings:
    """Lengths in mm; ``smooth`` weighs the squared change between neighbours (per step squared), ``stay`` the squared
    distance to the rectangle. The inner band is that of the shell: spongiosa may be no brighter than the soft tissue
    outside. ``chance``: share of what noise makes the bands differ by that is taken off; white noise then comes to a
    confidence of about 0.1."""

    spacing: float = 1.0
    reach: float = 5.0
    step: float = 0.25
    corner: float = 4.0
    smooth: float = 0.08
    stay: float = 0.006
    final_sigma: float = 1.5
    support: float = 3.0
    inner_band: tuple[float, float] = (0.5, 2.5)
    outer_band: tuple[float, float] = (1.0, 3.0)
    chance: float = 0.8


@dataclass(frozen=True)
class Outline:
    """``points`` (N, 2), mm on the mid plane, closed (the last is next to the first); ``darkening`` (N,) by how
    much the band outside of the outline is darker than the band inside, beyond chance, in the image's values;
    ``inside_image``: no point lies outside of the image."""

    points: NDArray[np.float64]
    darkening: NDArray[np.float64]
    inside_image: bool


def trace_outline(image: PlaneImage, box: Box, polarity: float = 1.0,
                  settings: OutlineSettings | None = None) -> Outline:
    """Outline near ``box``. ``image`` is blurred by EDGE_SCALE_MM; ``polarity`` is 1 where bone is bright."""
    settings = settings or OutlineSettings()
    base, normals = rounded_rectangle(box, settings.corner, settings.spacing)
    count = round(settings.reach / settings.step)
    offsets = np.arange(-count - 1, count + 2) * settings.step
    values, inside = image.sample(base[:, None, :] + offsets[None, :, None] * normals[:, None, :])
    darkening = -polarity * (values[:, 2:] - values[:, :-2]) / 2.0
    edges = np.tanh(darkening / edge_strength(np.abs(darkening)))
    offsets = offsets[1:-1]
    cost = -edges + settings.stay * offsets**2
    path = closed_path(cost, settings.smooth)
    shifts = _between_steps(edges, path) * settings.step + offsets[path]
    shifts = gaussian_filter1d(shifts, settings.final_sigma / settings.spacing, mode="wrap")
    chosen = np.arange(len(base))
    points = base + shifts[:, None] * normals
    return Outline(points, band_darkening(image, points, normals, polarity, settings),
                   bool(inside[:, 1:-1][chosen, path].all()))


def band_darkening(image: PlaneImage, points: NDArray, normals: NDArray, polarity: float,
                   settings: OutlineSettings) -> NDArray[np.float64]:
    """(N,) mean of the band inside minus mean of the band outside of an outline, beyond chance, averaged along it.

    The outline was laid where the image happens to change, which makes bands beside it differ even in noise. White
    noise blurred by s has the correlation exp(-d^2 / 4 s^2), so that beside a slope of 1 it is expected to rise by
    d exp(-d^2 / 4 s^2) at the distance d. Most of this is taken off; all of it would be too much, because on the crest
    of a slope, where the outline lies, noise falls off sooner.
    """
    difference = np.zeros(len(points))
    lever = 0.0
    for side, (near, far) in ((-1.0, settings.inner_band), (1.0, settings.outer_band)):
        distances = np.arange(near, far + 1e-9, settings.step)
        values, _ = image.sample(points[:, None, :] + side * distances[None, :, None] * normals[:, None, :])
        difference -= side * polarity * values.mean(axis=1, dtype=np.float64)
        lever += float((distances * np.exp(-((distances / EDGE_SCALE_MM) ** 2) / 4.0)).mean())
    beside, _ = image.sample(points[:, None, :] + np.array([-0.5, 0.5])[:, None] * settings.step * normals[:, None, :])
    slope = polarity * (beside[:, 0] - beside[:, 1]).astype(np.float64) / settings.step
    difference -= settings.chance * lever * slope
    return gaussian_filter1d(difference, settings.support / settings.spacing, mode="wrap")


def rounded_rectangle(box: Box, radius: float, spacing: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (N, 2) and outward normals (N, 2) along the box with rounded corners, about ``spacing`` apart, mm."""
    radius = min(radius, 0.45 * box.depth, 0.45 * box.height)
    half = np.array([box.depth, box.height]) / 2.0 - radius
    points, normals = [], []
    for corner in range(4):
        start = corner * np.pi / 2.0
        angles = start + np.linspace(0.0, np.pi / 2.0, max(round(radius * np.pi / 2.0 / spacing), 2), endpoint=False)
        directions = np.column_stack([np.cos(angles), np.sin(angles)])
        middle = half * np.sign(np.array([np.cos(start + np.pi / 4.0), np.sin(start + np.pi / 4.0)]))
        points.append(middle + radius * directions)
        normals.append(directions)
        side = 2.0 * half[0] if corner % 2 == 0 else 2.0 * half[1]
        normal = np.array([np.cos(start + np.pi / 2.0), np.sin(start + np.pi / 2.0)])
        along = np.array([-normal[1], normal[0]])
        steps = np.linspace(0.0, side, max(round(side / spacing), 2), endpoint=False)
        points.append(middle + radius * normal + steps[:, None] * along)
        normals.append(np.repeat(normal[None], len(steps), axis=0))
    return (box.centre + np.concatenate(points) @ box.axes, np.concatenate(normals) @ box.axes)


def closed_path(cost: NDArray, smooth: float) -> NDArray[np.int64]:
    """For every row of ``cost`` (N, S) one column, neighbours (cyclically) at most two columns apart; the sum of cost
    and of ``smooth`` x squared change is least among paths through the place where the open solution is steadiest."""
    middle = len(cost) // 2
    turned = np.roll(cost, middle, axis=0)
    open_path = _open_path(turned, smooth, None)
    anchor = int(open_path[middle])
    return _open_path(cost, smooth, anchor)


def _open_path(cost: NDArray, smooth: float, anchor: int | None) -> NDArray[np.int64]:
    """Least-cost path; with ``anchor`` it begins there and ends within reach of it."""
    count, states = cost.shape
    moves = np.array([0, -1, 1, -2, 2])
    total = cost[0].astype(np.float64).copy()
    if anchor is not None:
        total[np.arange(states) != anchor] = np.inf
    back = np.zeros((count, states), np.int64)
    for row in range(1, count):
        options = np.full((len(moves), states), np.inf)
        for index, move in enumerate(moves):
            source = np.arange(states) + move
            valid = (source >= 0) & (source < states)
            options[index, valid] = total[source[valid]] + smooth * move**2
        best = options.argmin(axis=0)
        back[row] = np.arange(states) + moves[best]
        total = options[best, np.arange(states)] + cost[row]
    if anchor is not None:
        change = np.abs(np.arange(states) - anchor)
        total = np.where(change <= 2, total + smooth * change**2, np.inf)
    path = np.empty(count, np.int64)
    path[-1] = int(total.argmin())
    for row in range(count - 1, 0, -1):
        path[row - 1] = back[row, path[row]]
    return path


def _between_steps(edges: NDArray, path: NDArray) -> NDArray[np.float64]:
    """Top of the parabola through an edge and its two neighbours, in steps from the middle one, -0.5 .. 0.5."""
    rows = np.arange(len(path))
    inner = np.clip(path, 1, edges.shape[1] - 2)
    before, at, after = edges[rows, inner - 1], edges[rows, inner], edges[rows, inner + 1]
    bend = before - 2.0 * at + after
    top = np.where(bend < -1e-9, 0.5 * (before - after) / np.where(bend < -1e-9, bend, 1.0), 0.0)
    return np.where(path == inner, np.clip(top, -0.5, 0.5), 0.0)
