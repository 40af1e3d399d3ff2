"""Completion by the correction network: the same questions and answers as `completion.ShapeModelCompletion`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from usx_common.clouds import finite_rows
from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, vertex_normals
from usx_common.transforms import apply, make_transform
from usx_completion.completion import CompletedLevel, Completion
from usx_completion.contact import TOLERATED_MM, fit_joints
from usx_completion.correction.answer import answers
from usx_completion.correction.calibration import (
    FEWEST,
    NEAR_MM,
    SigmaScale,
    offsets_near,
    residual_of,
    scale_of,
)
from usx_completion.correction.network import CorrectionNetwork
from usx_completion.correction.polish import Polish
from usx_completion.correction.scene import NothingPlaced, make_scene
from usx_completion.correction.weights import load_network
from usx_completion.observation import ObservationSettings, observe
from usx_completion.shape_model import PACKAGED_REAL, ShapeModel, load_shape_model
from usx_completion.training.weights import BadWeights

JOINT_TURNS, JOINT_ROUNDS = 4, 10  # the network's bones run into each other by up to 4 mm, sampled ones by little


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
        return CorrectionCompletion(self.network, self._model, self._sigma, device, self._settings)

    def complete(self, points: NDArray, labels: NDArray, sources: NDArray) -> Completion:
        """Complete vertebrae of a partial spine: ``points`` (N, 3) mm, frame spine; ``labels``, ``sources`` (N,).

        The answer depends on this cloud alone, and moves with it: all is counted from the middle of its points. Raises
        BadPartial for a cloud that cannot be used at all.
        """
        origin = _middle(np.asarray(points, np.float64))
        observation = observe(points - origin, labels, sources, self._settings)
        try:
            scene, reasons = make_scene(self._model, observation, self._settings.smallest_level)
        except NothingPlaced as error:
            return Completion({}, {**observation.reasons, **error.reasons}, observation.dropped)
        answer, = answers(self.network, self._polish, [scene], self._device)
        local, poses = answer.local, answer.poses
        points, levels, reasons = scene.points.astype(np.float64), {}, {**observation.reasons, **reasons}
        answered, sigma = scene.placed.copy(), {}
        for k in np.flatnonzero(scene.placed):
            offsets = offsets_near(Mesh(apply(poses[k], local[k]), self._model.faces), points)
            if len(points) == 0:
                sigma[k] = self._sigma.of(answer.sigma[k], None)
            elif len(offsets) < FEWEST:
                answered[k] = False
                reasons[LEVELS[k]] = f"only {len(offsets)} ultrasound points are within {NEAR_MM:g} mm of the answer"
            else:
                sigma[k] = self._sigma.of(answer.sigma[k], residual_of(offsets))
        for run in _neighbours(answered):  # a level that is not answered must not dent those that are
            local[run] = self._joints_fitted(local[run], poses[run])
        for k in np.flatnonzero(answered):
            pose = make_transform(poses[k][:3, :3], poses[k][:3, 3] + origin)
            mesh = Mesh(apply(pose, local[k]), self._model.faces)
            levels[LEVELS[k]] = CompletedLevel(mesh, sigma[k], pose)
        return Completion(levels, {level: reason for level, reason in reasons.items() if level not in levels},
                          observation.dropped, answer.shift)

    def _joints_fitted(self, shapes: NDArray, poses: NDArray) -> NDArray[np.float64]:
        """(L, V, 3) shapes that draw back until neighbours touch by no more than is tolerated; normals are taken anew
        in between, for dents turn them."""
        for _ in range(JOINT_TURNS):
            normals = np.stack([vertex_normals(Mesh(shape, self._model.faces)) for shape in shapes])
            shapes, left = fit_joints(shapes, normals, poses, JOINT_ROUNDS)
            if left <= TOLERATED_MM:
                break
        return shapes


def _middle(points: NDArray) -> NDArray[np.float64]:
    """Median (3,) of the finite points; the origin where there is none, which is refused later."""
    if points.ndim != 2 or points.shape[1] != 3 or not (finite := finite_rows(points)).any():
        return np.zeros(3)
    return np.median(points[finite], axis=0)


def _neighbours(answered: NDArray) -> list[slice]:
    """Runs of levels that are answered."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], answered.astype(int), [0]])))
    return [slice(first, last) for first, last in zip(edges[::2], edges[1::2], strict=True)]
