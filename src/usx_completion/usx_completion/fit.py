"""The fit of all levels of a spine to one partial cloud: Gauss-Newton with reassigned correspondences.

Levels are solved together in three ways: every ultrasound point belongs to the level that explains it best (soft
assignment, so a neighbour's processes do not pull), the modes and poses of neighbours inform each other, and one
displacement of the X-ray is shared by all bodies. The robust scale shrinks as the fit proceeds (Cauchy weights).
Deterministic: nothing is sampled, and nothing is kept between calls.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common.levels import LEVELS, UNKNOWN_LABEL, label_of_level
from usx_common.transforms import Matrix, invert, make_transform
from usx_completion.fit_level import (
    Equations,
    LevelState,
    add_outline,
    add_points,
    add_pose_prior,
    add_shape_prior,
    normal_variance,
    solve_jointly,
)
from usx_completion.level_shape import LevelShape
from usx_completion.observation import SpineObservation
from usx_completion.placement import usual_step
from usx_completion.rigid import rotation_matrix
from usx_completion.shape_model import ShapeModel


@dataclass(frozen=True)
class Stage:
    """One iteration: robust scale (mm) and which shape columns move: "pose", "modes" or "all"."""

    scale_mm: float
    columns: str


def default_stages() -> tuple[Stage, ...]:
    """Pose first, then the modes, then the Gaussian process; the robust scale shrinks."""
    pose = [Stage(scale, "pose") for scale in (10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.5, 4.0, 4.0, 4.0)]
    modes = [Stage(scale, "modes") for scale in (4.0, 3.5, 3.0, 2.8, 2.6, 2.4, 2.2, 2.0)]
    every = [Stage(scale, "all") for scale in (2.0, 2.0, 1.8, 1.8, 1.6, 1.6, 1.5, 1.5)]
    return (*pose, *modes, *every)


@dataclass(frozen=True)
class FitSettings:
    """Standard deviations in mm and degrees. ``points_per_datum``: neighbouring points share their error."""

    ultrasound_sd: float = 0.9
    points_per_datum: float = 10.0
    xray_sd: float = 1.0
    xray_shift_sd_mm: float = 0.7
    xray_turn_sd_deg: float = 0.5
    reach_mm: float = 15.0
    own_label_odds: float = 6.0
    unlabelled_weight: float = 0.2
    largest_tilt_sd_deg: float = 9.0
    step_scale: float = 1.5
    step_sd_floor_deg: float = 3.0
    step_sd_floor_mm: float = 2.5
    sigma_scale: float = 1.0
    sigma_floor_mm: float = 0.35
    stages: tuple[Stage, ...] = field(default_factory=default_stages)


@dataclass(frozen=True)
class FittedLevel:
    """A level's answer: its ``state`` and ``sigma`` (V,), one standard deviation in mm along the normal."""

    state: LevelState
    sigma: NDArray[np.float64]
    used_points: int


@dataclass(frozen=True)
class SpineFit:
    """All levels of one fit; ``xray_shift`` (3,): of the X-ray, posterior and cranial (mm), rotation (rad)."""

    levels: dict[str, FittedLevel]
    xray_shift: NDArray[np.float64]


class SpineFitter:
    """One fit of one observation, from initial poses."""

    def __init__(self, model: ShapeModel, shapes: dict[str, LevelShape], observation: SpineObservation,
                 settings: FitSettings) -> None:
        self._model, self._shapes, self._observation, self._settings = model, shapes, observation, settings
        self._shift = np.zeros(3)
        self._shift_sd = np.array([settings.xray_shift_sd_mm] * 2 + [np.radians(settings.xray_turn_sd_deg)])
        self._used: dict[str, int] = {}

    def fit(self, start: dict[str, Matrix]) -> SpineFit:
        """The fitted levels for initial poses ``level_to_spine`` of the levels to fit, cranial to caudal."""
        states = {level: LevelState.at(self._shapes[level], start[level], np.zeros(0))
                  for level in LEVELS if level in start}
        for stage in self._settings.stages:
            columns = self._columns(stage)
            states = {level: state.with_columns(columns) for level, state in states.items()}
            equations = self._equations(states, stage)
            steps, shift = solve_jointly(list(equations.values()), self._shift, self._shift_sd)
            self._shift = self._shift + shift
            states = {level: state.moved(_bounded(step))
                      for (level, state), step in zip(states.items(), steps, strict=True)}
        return self._answer(states)

    def _columns(self, stage: Stage) -> int:
        shape = next(iter(self._shapes.values()))
        return {"pose": 0, "modes": shape.shared, "all": shape.basis.shape[2]}[stage.columns]

    def _equations(self, states: dict[str, LevelState], stage: Stage) -> dict[str, Equations]:
        columns = self._columns(stage)
        pairs = assign_points(self._observation, states, stage.scale_mm, self._settings)
        self._used = {level: len(rows) for level, (rows, _, _) in pairs.items()}
        result = {}
        for level, state in states.items():
            equations = Equations.empty(columns)
            add_points(equations, state, pairs[level], columns)
            self._add_xray(equations, state, stage, columns)
            self._add_pose_priors(equations, states, level)
            if columns:
                add_shape_prior(equations, state, *self._shape_prior(states, level))
            equations.matrix[np.diag_indices(6)] += 1e-6
            result[level] = equations
        return result

    def _add_xray(self, equations: Equations, state: LevelState, stage: Stage, columns: int) -> None:
        plane, outline = self._observation.plane, self._observation.outlines.get(state.shape.level)
        if plane is None or outline is None:
            return
        scale = max(stage.scale_mm, 2.5)
        add_outline(equations, state, plane, outline, self._shift, (scale, self._settings.xray_sd, columns))

    def _add_pose_priors(self, equations: Equations, states: dict[str, LevelState], level: str) -> None:
        """Usual tilt in the spine's frame, and the usual place relative to the neighbours that are fitted too."""
        index, state, settings = LEVELS.index(level), states[level], self._settings
        tilt = make_transform(rotation_matrix(self._model.tilt_mean[index]), state.level_to_spine[:3, 3])
        tilt_sd = np.maximum(1.5 * self._model.tilt_sd[index], np.radians(settings.largest_tilt_sd_deg))
        add_pose_prior(equations, state, tilt, np.r_[tilt_sd, [np.inf] * 3])
        for step, neighbour, inverse in ((index - 1, index - 1, False), (index, index + 1, True)):
            if not 0 <= neighbour < len(LEVELS) or LEVELS[neighbour] not in states:
                continue
            down = usual_step(self._model, step)
            expected = states[LEVELS[neighbour]].level_to_spine @ (invert(down) if inverse else down)
            floor = np.r_[[np.radians(settings.step_sd_floor_deg)] * 3, [settings.step_sd_floor_mm] * 3]
            sd = np.maximum(settings.step_scale * self._model.step_sd[step], floor)
            add_pose_prior(equations, state, expected, sd)

    def _shape_prior(self, states: dict[str, LevelState], level: str) -> tuple[NDArray, NDArray]:
        """Mean and variance of the coefficients given those of the other levels (compound symmetric correlation)."""
        state = states[level]
        count = len(state.coefficients)
        expected, variance = np.zeros(count), np.ones(count)
        others = [other.coefficients for name, other in states.items() if name != level]
        if others:
            shared = state.shape.shared
            rho, number = state.shape.correlation, len(others)
            gain = rho / (1.0 + (number - 1.0) * rho)
            expected[:shared] = gain * np.sum([other[:shared] for other in others], axis=0)
            variance[:shared] = 1.0 - gain * number * rho
        return expected, variance

    def _answer(self, states: dict[str, LevelState]) -> SpineFit:
        settings = self._settings
        last = settings.stages[-1]
        equations = self._equations(states, last)
        shared = np.diag(1.0 / self._shift_sd**2)
        for level in equations.values():
            shared = shared + level.shared - level.coupling.T @ np.linalg.solve(level.matrix, level.coupling)
        covariance = np.linalg.inv(shared)
        levels = {}
        for name, state in states.items():
            variance = normal_variance(state, equations[name], covariance)
            if last.columns == "all":
                variance = variance + state.shape.leftover_sd**2
            sigma = np.sqrt(settings.sigma_scale**2 * variance + settings.sigma_floor_mm**2)
            levels[name] = FittedLevel(state, sigma, self._used[name])
        return SpineFit(levels, self._shift)


def assign_points(observation: SpineObservation, states: dict[str, LevelState], scale_mm: float,
                  settings: FitSettings) -> dict[str, tuple[NDArray, NDArray, NDArray]]:
    """Per level: model vertices (N,), points (N, 3) and weights (N,) of the ultrasound points it is to explain.

    A point may belong to any fitted level within reach, its own label being the more likely; the responsibility falls
    off with the distance to that level's posterior surface. Only surface that faces backwards can have been seen.
    """
    points, labels = observation.points, observation.labels
    names = list(states)
    distance = np.full((len(names), len(points)), np.inf)
    vertex = np.zeros((len(names), len(points)), dtype=np.int64)
    for row, name in enumerate(names):
        state = states[name]
        seen = np.flatnonzero(state.normals[:, 1] > 0.05)
        distance[row], index = cKDTree(state.vertices[seen]).query(points, distance_upper_bound=settings.reach_mm)
        vertex[row] = seen[np.minimum(index, len(seen) - 1)]
    odds = np.ones_like(distance)
    for row, name in enumerate(names):
        odds[row, labels == label_of_level(name)] = settings.own_label_odds
    closeness = odds / (1.0 + (distance / scale_mm) ** 2) ** 2
    total = np.maximum(closeness.sum(axis=0), 1e-30)
    # where other points have a level, one without was found to fit none
    doubt = np.where((labels == UNKNOWN_LABEL) & np.any(labels != UNKNOWN_LABEL), settings.unlabelled_weight, 1.0)
    pairs = {}
    for row, name in enumerate(names):
        reached = np.flatnonzero(np.isfinite(distance[row]))
        chosen = vertex[row, reached]
        offset = points[reached] - states[name].vertices[chosen]
        along = np.einsum("ni,ni->n", offset, states[name].normals[chosen])
        # beside the surface is as bad as off it, beyond the spacing of the vertices
        beside = np.maximum(np.sqrt(np.maximum(distance[row, reached] ** 2 - along**2, 0.0)) - 2.0, 0.0)
        belief = closeness[row, reached] * doubt[reached] / total[reached]
        weights = belief / (1.0 + (along**2 + beside**2) / scale_mm**2)
        weights = weights / (settings.ultrasound_sd**2 * settings.points_per_datum)
        keep = weights > 0.02 * weights.max(initial=0.0)
        pairs[name] = (chosen[keep], points[reached[keep]], weights[keep])
    return pairs


def _bounded(step: NDArray, largest_turn: float = 0.15, largest_move: float = 8.0) -> NDArray[np.float64]:
    """A step cut to at most ``largest_turn`` rad and ``largest_move`` mm, so that one bad iteration cannot run away."""
    turn, move = float(np.linalg.norm(step[:3])), float(np.linalg.norm(step[3:6]))
    return step * min(1.0, largest_turn / max(turn, 1e-12), largest_move / max(move, 1e-12))
