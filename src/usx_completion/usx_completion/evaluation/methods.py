"""What is evaluated: the protocol of a method, the shape model's three rows, and where other methods are added."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.meshes import Mesh
from usx_completion.completed import CompletedLevel, Completion
from usx_completion.completion import CompletionSettings, ShapeModelCompletion
from usx_completion.evaluation.case import CaseInput
from usx_completion.fit import FitSettings, Stage, default_stages
from usx_completion.shape_model import PACKAGED_REAL, load_shape_model

Prediction = Mesh | NDArray[np.float64] | CompletedLevel


def shape_of(prediction: Prediction) -> Mesh | NDArray[np.float64]:
    """The mesh or cloud alone of a prediction that may tell its sigma too."""
    return prediction.mesh if isinstance(prediction, CompletedLevel) else prediction


class Method(Protocol):
    """Completes a spine from a case's input, which does not hold the truth."""

    @property
    def name(self) -> str:
        """Name in the tables."""

    def complete(self, given: CaseInput) -> Mapping[str, Prediction]:
        """Level -> mesh, cloud (N, 3) or mesh with sigma, mm, frame spine, of the levels it can complete; the same
        input gives the same answer. Raises UsxError for an input that it cannot use at all."""


@dataclass(frozen=True)
class MethodOptions:
    """What factories may use: the ``shape_model`` of the shape model's rows, the ``device`` of networks, and a folder
    of ``weights`` that is looked into before the packaged ones."""

    shape_model: Path = PACKAGED_REAL
    device: str = "cpu"
    weights: Path | None = None


class MissingWeights(UsxError):
    """A method cannot be evaluated because its weights are not there; the text says how to make them."""


class ShapeModelMethod:
    """A row of the statistical shape model: "mean" merely placed, "SSM" pose and modes, "SSM+GP" the whole fit."""

    def __init__(self, name: str, model_file: Path = PACKAGED_REAL) -> None:
        self.name = name
        model, _ = load_shape_model(model_file)
        settings = CompletionSettings(fit=FitSettings(stages=modes_only())) if name == "SSM" else CompletionSettings()
        self._completion = ShapeModelCompletion(model, settings)

    def complete(self, given: CaseInput) -> dict[str, Prediction]:
        """Meshes of the levels that the fit could complete; with sigma, but for the mean that is only placed."""
        levels = self._run(given).levels
        if self.name == "mean":
            return {level: completed.mesh for level, completed in levels.items()}
        return dict(levels)

    def _run(self, given: CaseInput) -> Completion:
        fit = self._completion.place_mean if self.name == "mean" else self._completion.complete
        return fit(given.points, given.labels, given.sources)


def modes_only() -> tuple[Stage, ...]:
    """Stages of a fit as long as the whole one, in which the Gaussian process has no part."""
    return tuple(replace(stage, columns="modes") if stage.columns == "all" else stage for stage in default_stages())


Factory = Callable[[MethodOptions], Method]


def _shape_model(name: str) -> Factory:
    return lambda options: ShapeModelMethod(name, options.shape_model)


def _network(name: str) -> Factory:
    def factory(options: MethodOptions) -> Method:
        from usx_completion.evaluation.networks import open_network  # it needs this module

        return open_network(name, options)
    return factory


# One line for each method: its name in the tables and what makes it. A factory raises MissingWeights when it cannot.
FACTORIES: dict[str, Factory] = {
    "mean": _shape_model("mean"),
    "SSM": _shape_model("SSM"),
    "SSM+GP": _shape_model("SSM+GP"),
    "US-only": _network("US-only"),
    "EF": _network("EF"),
    "LF": _network("LF"),
    "EF+LF": _network("EF+LF"),
    "usx": _network("usx"),
}


def chosen_names(wanted: Sequence[str]) -> list[str]:
    """Names in the order of the tables; none wanted: all. Upper and lower case are the same.

    Raises UsxError for an unknown one.
    """
    by_lower = {name.lower(): name for name in FACTORIES}
    unknown = [name for name in wanted if name.lower() not in by_lower]
    if unknown:
        raise UsxError(f"method {unknown[0]!r} is unknown; known are {', '.join(FACTORIES)}")
    asked = {by_lower[name.lower()] for name in wanted} or set(FACTORIES)
    return [name for name in FACTORIES if name in asked]


def open_methods(names: Sequence[str], options: MethodOptions | None = None) -> tuple[list[Method], list[str]]:
    """The methods that can run, and a line on each that is left out."""
    methods, notes = [], []
    for name in names:
        try:
            methods.append(FACTORIES[name](options or MethodOptions()))
        except MissingWeights as error:
            notes.append(str(error))
    return methods, notes
