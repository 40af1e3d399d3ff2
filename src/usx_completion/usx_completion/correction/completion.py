"""Completion by the correction network: the same questions and answers as `completion.ShapeModelCompletion`."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from usx_common.clouds import finite_rows
from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, vertex_normals
from usx_common.transforms import apply, invert, make_transform
from usx_completion.completed import CompletedLevel, Completion, reasons_for
from usx_completion.contact import TOLERATED_MM, fit_joints, overlaps
from usx_completion.correction.answer import Answer, answers
from usx_completion.correction.calibration import SigmaScale, offsets_near, residual_of, scale_of
from usx_completion.correction.network import CorrectionNetwork
from usx_completion.correction.polish import Polish
from usx_completion.correction.scene import NothingPlaced, Scene, make_scene, without_ultrasound
from usx_completion.correction.weights import load_network
from usx_completion.observation import ObservationSettings, SpineObservation, observe
from usx_completion.plausibility import FEWEST, NEAR_MM, doubts
from usx_completion.shape_model import PACKAGED_REAL, ShapeModel, load_shape_model
from usx_completion.training.weights import BadWeights

JOINT_TURNS, JOINT_ROUNDS = 4, 10  # the network's bones run into each other by up to 4 mm, sampled ones by little
TOLD_MM = 1.0  # joints that touch by more are told of
_NOTHING = np.zeros((0, 3)), np.zeros(0, np.int64)


class CorrectionCompletion:
    """Answers one partial spine at a time with ``network``; holds no state between calls. ``device``: cpu or cuda."""

    def __init__(self, network: CorrectionNetwork, model: ShapeModel, sigma: SigmaScale | None = None,
                 device: str = "cpu", settings: ObservationSettings | None = None) -> None:
        self.network, self._model = network.to(device).eval(), model
        self._sigma, self._device = sigma or SigmaScale(), device
        self._settings, self._polish = settings or ObservationSettings(), Polish(model)
        self.card: dict[str, str] = {}  # of the file that the weights are from

    @staticmethod
    def load(path: Path, device: str = "cpu", settings: ObservationSettings | None = None) -> CorrectionCompletion:
        """From a file of weights and the packaged shape model of real people. Raises BadModel, BadWeights."""
        model, metadata = load_shape_model(PACKAGED_REAL)
        network, card = load_network(path, model, metadata["sha256"])
        try:
            sigma = scale_of(card)
        except UsxError as error:
            raise BadWeights(f"{path}: {error}; train again") from error
        completion = CorrectionCompletion(network, model, sigma, device, settings)
        completion.card = card
        return completion

    def moved_to(self, device: str) -> CorrectionCompletion:
        """The same on another device. Its weights leave the one they are on."""
        moved = CorrectionCompletion(self.network, self._model, self._sigma, device, self._settings)
        moved.card = self.card
        return moved

    def complete(self, points: NDArray, labels: NDArray, sources: NDArray) -> Completion:
        """Complete vertebrae of a partial spine: ``points`` (N, 3) mm, frame spine; ``labels``, ``sources`` (N,).

        The answer depends on this cloud alone, and moves with it: all is counted from the middle of its points. (X-ray
        points on a regular grid are filled in on another one, and rounding decides some ties: outlines, by less than
        the points are apart.) Raises BadPartial for a cloud that cannot be used at all.
        """
        points, origin = _about_middle(np.asarray(points, np.float64))
        observation = observe(points, labels, sources, self._settings)
        try:
            scene, missing = make_scene(self._model, observation, self._settings.smallest_level)
        except NothingPlaced as error:
            return Completion({}, reasons_for({}, observation.reasons, error.reasons), observation.dropped)
        answer, = answers(self.network, self._polish, [scene], self._device)
        levels, few = self._supported(scene, answer)
        seen = observation if len(scene.points) else without_ultrasound(observation)
        wrong = few | doubts(self._model, levels, seen.points, seen.labels)
        levels = {level: found for level, found in levels.items() if level not in wrong}
        if more := self._by_the_xray(observation, levels, scene.shown & ~scene.placed):
            levels |= more
            wrong |= doubts(self._model, levels, *_NOTHING)
            levels = {level: levels[level] for level in LEVELS if level in levels and level not in wrong}
        levels, touching = self._joints_fitted(levels)
        levels = {level: _moved(found, origin) for level, found in levels.items()}
        shift = answer.shift if scene.shown.any() else np.zeros(3)
        return Completion(levels, reasons_for(levels, observation.reasons, missing | wrong) | touching,
                          observation.dropped, shift)

    def _supported(self, scene: Scene, answer: Answer) -> tuple[dict[str, CompletedLevel], dict[str, str]]:
        """The levels that ultrasound points lie near to, with a sigma that holds; and what is said of the others."""
        levels, few = {}, {}
        points = scene.points.astype(np.float64)
        for k in np.flatnonzero(scene.placed):
            mesh = Mesh(apply(answer.poses[k], answer.local[k]), self._model.faces)
            offsets = offsets_near(mesh, points)
            if 0 < len(points) and len(offsets) < FEWEST:
                few[LEVELS[k]] = f"only {len(offsets)} ultrasound points are within {NEAR_MM:g} mm of the answer"
                continue
            sigma = self._sigma.of(answer.sigma[k], residual_of(offsets) if len(points) else None)
            levels[LEVELS[k]] = CompletedLevel(mesh, sigma, answer.poses[k], by_xray=len(points) == 0)
        return levels, few

    def _by_the_xray(self, observation: SpineObservation, levels: Mapping[str, CompletedLevel], lacking: NDArray
                     ) -> dict[str, CompletedLevel]:
        """The levels that ultrasound does not show yet, by their outlines as where there is no ultrasound at all, but
        moved by as much as the ``levels`` lie elsewhere than their outlines alone would have them."""
        if not lacking.any() or not levels:
            return {}
        scene, _ = make_scene(self._model, without_ultrasound(observation), self._settings.smallest_level)
        answer, = answers(self.network, self._polish, [scene], self._device)
        found, _ = self._supported(scene, answer)
        ways = [levels[level].level_to_spine[:3, 3] - found[level].level_to_spine[:3, 3]
                for level in levels if level in found]
        way = np.median(ways, axis=0) if ways else np.zeros(3)
        return {LEVELS[k]: _moved(found[LEVELS[k]], way) for k in np.flatnonzero(lacking) if LEVELS[k] in found}

    def _joints_fitted(self, levels: Mapping[str, CompletedLevel]
                       ) -> tuple[dict[str, CompletedLevel], dict[str, str]]:
        """The levels drawn back at their joints, and what is said of joints that touch all the same. A level that is
        not among them must not dent those that are."""
        result, touching = dict(levels), dict[str, str]()
        for run in _neighbours(levels):
            poses = np.stack([levels[level].level_to_spine for level in run])
            shapes = np.stack([apply(invert(pose), levels[level].mesh.vertices)
                               for pose, level in zip(poses, run, strict=True)])
            shapes, depths = self._drawn_back(shapes, poses)
            for level, shape, pose in zip(run, shapes, poses, strict=True):
                result[level] = replace(levels[level], mesh=Mesh(apply(pose, shape), self._model.faces))
            touching |= {f"{upper}-{lower}": f"they run into each other by {depth:.1f} mm"
                         for (upper, lower), depth in zip(pairwise(run), depths, strict=True) if depth > TOLD_MM}
        return result, touching

    def _drawn_back(self, shapes: NDArray, poses: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(L, V, 3) shapes that draw back from their neighbours, and (L - 1,) mm by which they still run into each
        other; normals are taken anew in between, for dents turn them."""
        for _ in range(JOINT_TURNS):
            normals = self._normals(shapes)
            shapes, left = fit_joints(shapes, normals, poses, JOINT_ROUNDS)
            if left <= TOLERATED_MM:
                return shapes, np.zeros(len(shapes) - 1)
        return shapes, overlaps(shapes, self._normals(shapes), poses)

    def _normals(self, shapes: NDArray) -> NDArray[np.float64]:
        return np.stack([vertex_normals(Mesh(shape, self._model.faces)) for shape in shapes])


def _about_middle(points: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The points counted from their middle, and that middle: the median (3,) of the finite ones. As they are where they
    are no points, which is refused later."""
    if points.ndim != 2 or points.shape[1] != 3 or not (finite := finite_rows(points)).any():
        return points, np.zeros(3)
    origin = np.median(points[finite], axis=0)
    return points - origin, origin


def _moved(level: CompletedLevel, origin: NDArray) -> CompletedLevel:
    pose = make_transform(level.level_to_spine[:3, :3], level.level_to_spine[:3, 3] + origin)
    return replace(level, mesh=Mesh(level.mesh.vertices + origin, level.mesh.faces), level_to_spine=pose)


def _neighbours(levels: Container[str]) -> list[list[str]]:
    """Runs of levels that follow each other, of two and more."""
    runs: list[list[str]] = []
    for level in (level for level in LEVELS if level in levels):
        if runs and LEVELS.index(level) == LEVELS.index(runs[-1][-1]) + 1:
            runs[-1].append(level)
        else:
            runs.append([level])
    return [run for run in runs if len(run) > 1]
