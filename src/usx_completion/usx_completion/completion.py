"""From a partial spine to complete vertebrae: observe, place, fit; and the merely placed mean to compare with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from numpy.typing import NDArray

from usx_completion.completed import CompletedLevel, Completion, reasons_for
from usx_completion.fit import FitSettings, SpineFitter, default_stages
from usx_completion.level_shape import FlexibilitySettings, level_shapes
from usx_completion.observation import ObservationSettings, observe
from usx_completion.placement import place
from usx_completion.plausibility import doubts
from usx_completion.shape_model import ShapeModel


@dataclass(frozen=True)
class CompletionSettings:
    """Settings of the three steps; a level that fewer than ``smallest_support`` points agree with is left out."""

    observation: ObservationSettings = field(default_factory=ObservationSettings)
    flexibility: FlexibilitySettings = field(default_factory=FlexibilitySettings)
    fit: FitSettings = field(default_factory=FitSettings)
    smallest_support: int = 30


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
        settings = replace(self._settings.fit, stages=stages + stages[-1:] * 6)
        return self._run(points, labels, sources, settings, believed=True)

    def _run(self, points: NDArray, labels: NDArray, sources: NDArray, fit: FitSettings, believed: bool = False
             ) -> Completion:
        """``believed``: whatever comes out, as long as it has some support."""
        observation = observe(points, labels, sources, self._settings.observation)
        placement = place(self._model, observation, self._settings.observation.smallest_level)
        if not placement.poses:
            return Completion({}, reasons_for({}, observation.reasons, placement.reasons), observation.dropped)
        result = SpineFitter(self._model, self._shapes, observation, fit).fit(placement.poses)
        levels = {level: CompletedLevel(fitted.state.mesh(), fitted.sigma, fitted.state.level_to_spine)
                  for level, fitted in result.levels.items()}
        few = {level: f"only {fitted.used_points} ultrasound points agree with the fitted shape"
               for level, fitted in result.levels.items() if fitted.used_points < self._settings.smallest_support}
        answered = {level: answer for level, answer in levels.items() if level not in few}
        wrong = few
        if not believed:
            wrong = few | doubts(self._model, answered, observation.points, observation.labels)
        kept = {level: answer for level, answer in answered.items() if level not in wrong}
        return Completion(kept, reasons_for(kept, observation.reasons, {**placement.reasons, **wrong}),
                          observation.dropped, result.xray_shift)


def place_mean(model: ShapeModel, points: NDArray, labels: NDArray, sources: NDArray) -> Completion:
    """The mean vertebrae of ``model`` merely placed into a partial spine: the baseline every fit must beat."""
    return ShapeModelCompletion(model).place_mean(points, labels, sources)
