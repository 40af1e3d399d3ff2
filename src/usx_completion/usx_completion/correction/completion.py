"""Completion by the correction network: the same questions and answers as `completion.ShapeModelCompletion`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, vertex_normals
from usx_common.transforms import apply
from usx_completion.completion import CompletedLevel, Completion
from usx_completion.contact import fit_joints
from usx_completion.correction.calibration import (
    FEWEST,
    NEAR_MM,
    SigmaFactor,
    factor_of,
    offsets_near,
    residual_of,
)
from usx_completion.correction.network import CorrectionNetwork, State
from usx_completion.correction.reading import Batch
from usx_completion.correction.scene import NothingPlaced, Scene, make_scene
from usx_completion.correction.weights import load_network
from usx_completion.observation import ObservationSettings, observe
from usx_completion.shape_model import PACKAGED_REAL, ShapeModel, load_shape_model


class CorrectionCompletion:
    """Answers one partial spine at a time with ``network``; holds no state between calls. ``device``: cpu or cuda."""

    def __init__(self, network: CorrectionNetwork, model: ShapeModel, sigma: SigmaFactor | None = None,
                 device: str = "cpu", settings: ObservationSettings | None = None) -> None:
        self.network, self._model = network.to(device).eval(), model
        self._sigma, self._device = sigma or SigmaFactor(), device
        self._settings = settings or ObservationSettings()

    @staticmethod
    def load(path: Path, device: str = "cpu", settings: ObservationSettings | None = None) -> CorrectionCompletion:
        """From a file of weights and the packaged shape model of real people. Raises BadModel, BadWeights."""
        model, metadata = load_shape_model(PACKAGED_REAL)
        network, card = load_network(path, model, metadata["sha256"])
        return CorrectionCompletion(network, model, factor_of(card), device, settings)

    def moved_to(self, device: str) -> CorrectionCompletion:
        """The same on another device. Its weights leave the one they are on."""
        return CorrectionCompletion(self.network, self._model, self._sigma, device, self._settings)

    def complete(self, points: NDArray, labels: NDArray, sources: NDArray) -> Completion:
        """Complete vertebrae of a partial spine: ``points`` (N, 3) mm, frame spine; ``labels``, ``sources`` (N,).

        The answer depends on this cloud alone. Raises BadPartial for a cloud that cannot be used at all.
        """
        observation = observe(points, labels, sources, self._settings)
        try:
            scene, reasons = make_scene(self._model, observation, self._settings.smallest_level)
        except NothingPlaced as error:
            return Completion({}, {**observation.reasons, **error.reasons}, observation.dropped)
        local, poses, sigma, shift = self._answer(scene)
        normals = np.stack([vertex_normals(Mesh(shape, self._model.faces)) for shape in local])
        for run in _neighbours(scene.placed):  # a level that is not answered must not dent those that are
            local[run], _ = fit_joints(local[run], normals[run], poses[run])
        points, levels, reasons = scene.points.astype(np.float64), {}, {**observation.reasons, **reasons}
        for k in np.flatnonzero(scene.placed):
            mesh = Mesh(apply(poses[k], local[k]), self._model.faces)
            offsets = offsets_near(mesh, points)
            if len(offsets) < FEWEST:
                reasons[LEVELS[k]] = f"only {len(offsets)} ultrasound points are within {NEAR_MM:g} mm of the answer"
            else:
                levels[LEVELS[k]] = CompletedLevel(mesh, sigma[k] * self._sigma.of(residual_of(offsets)), poses[k])
        return Completion(levels, {level: reason for level, reason in reasons.items() if level not in levels},
                          observation.dropped, shift)

    def _answer(self, scene: Scene) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        """(L, V, 3) local vertices, (L, 4, 4) poses, (L, V) sigma before calibration, mm, and (3,) the X-ray's
        correction: mm, mm, rad."""
        with torch.inference_mode():
            state: State = self.network(Batch.of([scene], self._device))[-1]
            local = self.network.local(state)[0].double().cpu().numpy()
            poses = _rigid(state.poses[0].double().cpu().numpy())
            sigma = torch.exp(state.log_sigma[0]).double().cpu().numpy()
        return local, poses, sigma, state.xray[0].double().cpu().numpy()


def _neighbours(placed: NDArray) -> list[slice]:
    """Runs of levels that are placed."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], placed.astype(int), [0]])))
    return [slice(first, last) for first, last in zip(edges[::2], edges[1::2], strict=True)]


def _rigid(poses: NDArray) -> NDArray[np.float64]:
    """Poses whose rotations are exact: float32 products drift by 1e-6."""
    left, _, right = np.linalg.svd(poses[:, :3, :3])
    poses = poses.copy()
    poses[:, :3, :3] = left @ right
    return poses
