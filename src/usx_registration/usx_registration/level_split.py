"""Which vertebra each ultrasound point belongs to.

Planes between the bodies do not do: spinous and inferior articular processes hang down behind the body below, and
superior articular processes reach up behind the disc above, so such planes mislabel 15-20 % of the points. Instead
the mean posterior surface of each level, placed on the bodies of the X-ray, is fitted to the points by expectation
maximisation (soft assignment, then a similarity and later a smooth change of each level: EM-ICP, Granger and
Pennec, ECCV 2002), and each point goes to the nearest fitted surface, smoothed along the bone (``smoothing``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common import transforms
from usx_common.clouds import voxel_downsample
from usx_common.levels import UNKNOWN_LABEL
from usx_registration.bodies import Body
from usx_registration.posterior_template import place_neighbours, place_template
from usx_registration.rigid import align, spread, truncated_cost
from usx_registration.smoothing import smooth_along_surface
from usx_registration.surfaces import make_surface, point_normals

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SplitSettings:
    """``voxel``: mm between the points that are fitted; ``scales``: mm, spread of the soft assignment, one iteration
    each; ``rigid_steps``: iterations with a similarity before affine and smooth changes; ``affinity``: stiffness
    against affine change (0 = free); ``smooth``: mm, width of the smooth change; ``bend``: mm that a normal at right
    angles counts; ``reach``: mm from the fitted surface beyond which a point belongs to no level;
    ``joint_scales``: mm, fit of the whole column first; ``lateral_search``: mm to either side;
    ``reluctance``: mm by which a neighbour that the X-ray does not show must be nearer."""

    voxel: float = 2.2
    scales: tuple[float, ...] = (4.0, 4.0, 3.0, 3.0, 2.0, 2.0, 1.5, 1.2, 1.0, 1.0)
    rigid_steps: int = 5
    affinity: float = 0.1
    smooth: float = 10.0
    bend: float = 1.0
    reach: float = 15.0
    joint_scales: tuple[float, ...] = (10.0, 8.0, 8.0, 6.0, 6.0, 5.0, 5.0)
    lateral_search: float = 30.0
    reluctance: float = 2.0


@dataclass(frozen=True)
class Split:
    """``labels`` (N,) uint8 VerSe numbers, 0 where none fits; ``surfaces``: fitted template points of each level,
    frame ``spine``, mm; ``median``: mm, distance of the labelled points to their level's surface; ``column_shift``:
    (4, 4) how the whole template moved to meet the ultrasound (a measure of how well X-ray and ultrasound agree)."""

    labels: NDArray[np.uint8]
    surfaces: dict[int, Array]
    median: float
    column_shift: Array


def split_levels(points: Array, bodies: dict[int, Body],
                 settings: SplitSettings = SplitSettings()) -> Split:
    """Split ultrasound points (N, 3), mm, frame ``spine`` (LPS), by the bodies of an X-ray in the same frame.

    With no bodies, or fewer than 50 points, all labels are 0. Deterministic.
    """
    if not bodies or len(points) < 50:
        return Split(np.zeros(len(points), np.uint8), {}, float("nan"), np.eye(4))
    thin = voxel_downsample(points, settings.voxel)
    normals = point_normals(thin, [0.0, 1.0, 0.0])
    placed = place_template(bodies)
    shift = fit_column(thin, placed, settings)
    # neighbours outside the X-ray are classes of their own, numbered below 0
    placed |= {-1 - i: surface for i, surface in enumerate(place_neighbours(bodies))}
    surfaces = {label: transforms.apply(shift, surface) for label, surface in placed.items()}
    costs = _fit_surfaces((thin, normals), surfaces, settings)
    belief = smooth_along_surface(thin, normals, _soft_share(costs, settings.scales[-1]))
    numbers = np.array([max(label, UNKNOWN_LABEL) for label in surfaces], dtype=np.uint8)
    labels = _spread_labels(points, thin, belief, costs, numbers, settings)
    known = {label: surface for label, surface in surfaces.items() if label > UNKNOWN_LABEL}
    return Split(labels, known, float(np.median(np.sqrt(costs.min(axis=1)))), shift)


def _fit_surfaces(bone: tuple[Array, Array], surfaces: dict[int, Array], settings: SplitSettings) -> Array:
    """Fit each level's surface to its share of the bone (points and normals, (N, 3) each), in place; neighbours stay
    where they are. Returns the final costs (N, L)."""
    # taken once: the fit turns a level by a few degrees at most, and normals only break ties between levels
    own_normals = [point_normals(surface, [0.0, 1.0, 0.0]) for surface in surfaces.values()]
    for step, scale in enumerate(settings.scales):
        costs, partners = _costs(bone, surfaces, own_normals, settings)
        share = _soft_share(costs, scale)
        fit = _fit_similarity if step < settings.rigid_steps else _fit_smoothly
        for column, label in enumerate(surfaces):
            weights = share[:, column] * np.exp(-costs[:, column] / (8.0 * scale**2))
            chosen = weights > 0.05
            if label > UNKNOWN_LABEL and chosen.sum() >= 30:
                surfaces[label] = fit(surfaces[label], partners[chosen, column], bone[0][chosen], weights[chosen],
                                      settings)
    return _costs(bone, surfaces, own_normals, settings)[0]


def fit_column(points: Array, surfaces: dict[int, Array], settings: SplitSettings) -> Array:
    """(4, 4) rigid motion, mm, that brings the placed templates onto the ultrasound points, all levels together.

    A lateral X-ray does not say where the mid-plane is, so the lateral place is searched for first.
    """
    column = np.concatenate(list(surfaces.values()))
    target = make_surface(column, [0.0, 1.0, 0.0], 2.0)
    few = spread(points, 1500)
    steps = np.arange(-settings.lateral_search, settings.lateral_search + 0.1, 5.0)
    middle = float(np.median(few[:, 0]) - np.median(column[:, 0]))
    starts = [transforms.make_transform(np.eye(3), [-middle + step, 0.0, 0.0]) for step in steps]
    best = min(starts, key=lambda start: truncated_cost(few, target, start, 8.0))
    return transforms.invert(transforms.nearest_rigid(align(few, target, best, settings.joint_scales)))


def _costs(bone: tuple[Array, Array], surfaces: dict[int, Array], own_normals: list[Array],
           settings: SplitSettings) -> tuple[Array, NDArray[np.int64]]:
    """(N, L) squared distances to each level, mm2, normals included, and the indices of the nearest points.

    ``bone``: points and normals, (N, 3) each.
    """
    points, normals = bone
    costs = np.empty((len(points), len(surfaces)))
    partners = np.empty(costs.shape, dtype=np.int64)
    for column, (surface, own) in enumerate(zip(surfaces.values(), own_normals, strict=True)):
        distance, index = cKDTree(surface).query(points)
        bend = 1.0 - np.abs(np.einsum("ni,ni->n", normals, own[index]))
        costs[:, column] = distance**2 + 2.0 * settings.bend**2 * bend
        partners[:, column] = index
    costs[:, np.array(list(surfaces)) < UNKNOWN_LABEL] += settings.reluctance**2
    return costs, partners


def _soft_share(costs: Array, scale: float) -> Array:
    share = np.exp(-(costs - costs.min(axis=1, keepdims=True)) / (2.0 * scale**2))
    return share / share.sum(axis=1, keepdims=True)


def _fit_similarity(surface: Array, partners: NDArray, goal: Array, weights: Array,
                    settings: SplitSettings) -> Array:
    """The surface (N, 3) moved so that its points ``partners`` (M,) meet ``goal`` (M, 3), by a similarity."""
    linear, offset = similarity(surface[partners], goal, weights)
    return surface @ linear.T + offset


def _fit_smoothly(surface: Array, partners: NDArray, goal: Array, weights: Array, settings: SplitSettings) -> Array:
    """The same by a similarity, then an affine change held back by ``affinity``, then what is left of the distances,
    averaged over a neighbourhood of ``smooth`` mm."""
    moved = _fit_similarity(surface, partners, goal, weights, settings)
    source = moved[partners]
    centre = weights @ source / weights.sum()
    design = np.column_stack([source - centre, np.ones(len(source))])
    normal = design.T @ (weights[:, None] * design)
    normal[:3, :3] += settings.affinity * np.trace(normal[:3, :3]) / 3.0 * np.eye(3)
    change = np.linalg.solve(normal, design.T @ (weights[:, None] * (goal - source)))
    moved = moved + np.column_stack([moved - centre, np.ones(len(moved))]) @ change
    source = moved[partners]
    distance, index = cKDTree(source).query(moved, k=min(24, len(source)))
    kernel = np.exp(-0.5 * (distance / settings.smooth) ** 2) * weights[index]
    residual = (goal - source)[index]
    return moved + np.einsum("nk,nkd->nd", kernel, residual) / (kernel.sum(axis=1, keepdims=True) + 1.0)


def similarity(source: Array, goal: Array, weights: Array) -> tuple[Array, Array]:
    """Linear part (3, 3) and offset (3,) of the weighted least-squares similarity (Umeyama, IEEE TPAMI 1991).

    The change of size in one step is kept within 5 %.
    """
    w = weights / weights.sum()
    source_mean, goal_mean = w @ source, w @ goal
    left, singular, right = np.linalg.svd((goal - goal_mean).T @ (w[:, None] * (source - source_mean)))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = left @ np.diag(sign) @ right
    size = float(singular @ sign / (w @ np.sum((source - source_mean) ** 2, axis=1)))
    linear = float(np.clip(size, 0.95, 1.05)) * rotation
    return linear, goal_mean - linear @ source_mean


def _spread_labels(points: Array, thin: Array, belief: Array, costs: Array, levels: NDArray[np.uint8],
                   settings: SplitSettings) -> NDArray[np.uint8]:
    """Labels of all points from the belief (M, L) of the thinned ones, weighted by distance."""
    distance, index = cKDTree(thin).query(points, k=min(4, len(thin)))
    weights = np.exp(-0.5 * (distance / (0.5 * settings.voxel)) ** 2) + 1e-9
    votes = np.einsum("nk,nkl->nl", weights, belief[index])
    labels = levels[votes.argmax(axis=1)]
    far = np.sqrt(costs.min(axis=1)) > settings.reach
    labels[far[index[:, 0]]] = UNKNOWN_LABEL
    return labels
