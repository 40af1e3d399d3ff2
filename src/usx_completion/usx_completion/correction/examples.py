"""Training examples of the correction network: a scene, the true vertices, and how far the X-ray is displaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_completion.correction.scene import NothingPlaced, Scene, make_scene
from usx_completion.correction.start import starting_poses
from usx_completion.data.online import OnlineSpines
from usx_completion.data.partial_spine import partial_spine
from usx_completion.data.presets import SampleSettings, preset_named
from usx_completion.data.spine_source import SourceChoice, mean_chain_of
from usx_completion.observation import SpineObservation, observe
from usx_completion.outline import silhouette
from usx_completion.placement import all_poses
from usx_completion.shape_model import ShapeModel


@dataclass(frozen=True)
class Example:
    """``vertices`` (L, V, 3) float32, the truth, mm, frame spine; ``blind_poses`` (L, 4, 4): the start without the
    X-ray; ``displaced`` (L, 2): from where the outline's middle is to where the true body's is, in the plane, mm."""

    scene: Scene
    vertices: NDArray[np.float32]
    blind_poses: NDArray[np.float64]
    displaced: NDArray[np.float32]


class ExampleMaker:
    """Examples by number: the presets in turn, and each source for all presets before the next. Deterministic.

    Every source is a shape model with the topology of ``model``, so that vertices correspond.
    """

    def __init__(self, model: ShapeModel, seed: int, presets: tuple[str, ...] = ("paper", "realistic"),
                 sources: tuple[str, ...] = ("real",)) -> None:
        self._model, self._seed, self._presets, self._sources = model, seed, presets, sources
        self._spines = {(source, name): OnlineSpines(seed, SampleSettings(preset_named(name)),
                                                     SourceChoice(source, seed))
                        for source in set(sources) for name in set(presets)}
        self._chains = {source: mean_chain_of(self._spines[source, presets[0]].source) for source in set(sources)}

    def example(self, number: int) -> Example:
        """Example ``number``. Raises UsxError for a spine of which too little was seen."""
        preset = self._presets[number % len(self._presets)]
        source = self._sources[number // len(self._presets) % len(self._sources)]
        truth, observed = self._spines[source, preset].examined(number)
        cloud = partial_spine(observed, self._chains[source], preset_named(preset).crop, self._seed * 2**32 + number)
        return example_of(self._model, observe(*cloud), truth.meshes)


def example_of(model: ShapeModel, observation: SpineObservation, truth: Mapping[str, Mesh]) -> Example:
    """The example of what was observed of ``truth`` (level -> mesh of the model's topology, mm, frame spine).

    Raises UsxError where an outline is missing, or no level can be placed, with the X-ray or without.
    """
    scene, _ = make_scene(model, observation)
    if not scene.shown.all():
        raise UsxError("an outline is missing")
    blind = starting_poses(model, SpineObservation(observation.points, observation.labels))
    if not blind.poses:
        raise NothingPlaced(blind.reasons)
    poses = all_poses(model, blind.poses)
    vertices = np.stack([truth[level].vertices for level in LEVELS]).astype(np.float32)
    return Example(scene, vertices, poses, displacement(model, observation, vertices))


def displacement(model: ShapeModel, observation: SpineObservation, vertices: NDArray) -> NDArray[np.float32]:
    """(L, 2) mm in the X-ray's plane from the middle of each outline to the middle of the true body's silhouette."""
    assert observation.plane is not None
    result = np.zeros((len(LEVELS), 2), np.float32)
    for index, (level, body) in enumerate(zip(LEVELS, model.xray_bodies, strict=True)):
        flat = observation.plane.flatten(vertices[index][body])
        rim, seen = flat[silhouette(flat)], observation.outlines[level].points
        result[index] = 0.5 * (rim.min(axis=0) + rim.max(axis=0) - seen.min(axis=0) - seen.max(axis=0))
    return result
