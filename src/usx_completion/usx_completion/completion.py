"""From a partial spine to complete vertebrae: observe, place, fit; and the merely placed mean to compare with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from usx_common.meshes import Mesh
from usx_common.transforms import Matrix
from usx_completion.fit import FitSettings, SpineFitter, default_stages
from usx_completion.level_shape import FlexibilitySettings, level_shapes
from usx_completion.observation import ObservationSettings, observe
from usx_completion.placement import place
from usx_completion.shape_model import PACKAGED, ShapeModel, load_shape_model


@dataclass(frozen=True)
class CompletionSettings:
    """Settings of the three steps; a level that fewer than ``smallest_support`` points agree with is left out."""

    observation: ObservationSettings = field(default_factory=ObservationSettings)
    flexibility: FlexibilitySettings = field(default_factory=FlexibilitySettings)
    fit: FitSettings = field(default_factory=FitSettings)
    smallest_support: int = 30


@dataclass(frozen=True)
class CompletedLevel:
    """One complete vertebra: ``mesh`` (mm, frame spine, watertight), ``sigma`` (V,) mm, ``level_to_spine`` (4, 4)."""

    mesh: Mesh
    sigma: NDArray[np.float64]
    level_to_spine: Matrix


@dataclass(frozen=True)
class Completion:
    """The levels that could be completed, and the ``reasons`` (level or "xray" -> sentence) for what is missing."""

    levels: dict[str, CompletedLevel]
    reasons: dict[str, str]
    dropped_points: int = 0
    xray_shift: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))


class ShapeModelCompletion:
    """Completes partial spines with the statistical shape model. Holds no state between calls."""

    def __init__(self, model: ShapeModel, settings: CompletionSettings | None = None) -> None:
        self._settings = settings or CompletionSettings()
        self._model = model
        self._shapes = level_shapes(model, self._settings.flexibility)

    def complete(self, points: NDArray, labels: NDArray, sources: NDArray) -> Completion:
        """Complete vertebrae of a partial spine: ``points`` (N, 3) mm, frame spine; ``labels``, ``sources`` (N,).

        The answer depends on this cloud alone. Raises BadPartial for a cloud that cannot be used at all.
        """
        return self._run(points, labels, sources, self._settings.fit)

    def place_mean(self, points: NDArray, labels: NDArray, sources: NDArray) -> Completion:
        """The mean vertebrae merely placed: rigid poses from the same data, the shape left as it is."""
        stages = tuple(stage for stage in default_stages() if stage.columns == "pose")
        return self._run(points, labels, sources, replace(self._settings.fit, stages=stages + stages[-1:] * 6))

    def _run(self, points: NDArray, labels: NDArray, sources: NDArray, fit: FitSettings) -> Completion:
        observation = observe(points, labels, sources, self._settings.observation)
        placement = place(self._model, observation, self._settings.observation.smallest_level)
        if not placement.poses:
            return Completion({}, {**observation.reasons, **placement.reasons}, observation.dropped)
        result = SpineFitter(self._model, self._shapes, observation, fit).fit(placement.poses)
        levels = {level: CompletedLevel(fitted.state.mesh(), fitted.sigma, fitted.state.level_to_spine)
                  for level, fitted in result.levels.items()}
        reasons = {**observation.reasons, **placement.reasons}
        for level, fitted in result.levels.items():
            if fitted.used_points < self._settings.smallest_support:
                del levels[level]
                reasons[level] = f"only {fitted.used_points} ultrasound points agree with the fitted shape"
        return Completion(levels, {level: reason for level, reason in reasons.items() if level not in levels},
                          observation.dropped, result.xray_shift)


def place_mean(model: ShapeModel, points: NDArray, labels: NDArray, sources: NDArray) -> Completion:
    """The mean vertebrae of ``model`` merely placed into a partial spine: the baseline every fit must beat."""
    return ShapeModelCompletion(model).place_mean(points, labels, sources)


def placed_mean_meshes(points: NDArray, labels: NDArray, sources: NDArray, model_file: Path = PACKAGED
                       ) -> dict[str, Mesh]:
    """Level -> merely placed mean vertebra (mm, frame spine) of a partial spine, for reports.

    Raises BadPartial for an unusable cloud, BadModel for an unusable model file.
    """
    model, _ = load_shape_model(model_file)
    completion = place_mean(model, points, labels, sources)
    return {level: completed.mesh for level, completed in completion.levels.items()}
