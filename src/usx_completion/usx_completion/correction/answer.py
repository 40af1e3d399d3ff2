"""From the network's numbers to vertices: the answer to a scene, polished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from usx_common.transforms import apply, invert, nearest_rigid
from usx_completion.correction.network import CorrectionNetwork, State
from usx_completion.correction.polish import Polish
from usx_completion.correction.reading import Batch, corrected_outlines
from usx_completion.correction.scene import Scene


@dataclass(frozen=True)
class Answer:
    """L levels, V vertices, mm: ``local`` (L, V, 3) in the levels' frames, ``poses`` (L, 4, 4) level to spine,
    ``sigma`` (L, V) before calibration, ``shift`` (3,): how the X-ray was corrected, mm, mm, rad."""

    local: NDArray[np.float64]
    poses: NDArray[np.float64]
    sigma: NDArray[np.float64]
    shift: NDArray[np.float64]

    @property
    def vertices(self) -> NDArray[np.float64]:
        """(L, V, 3) in frame spine."""
        return np.stack([apply(pose, local) for pose, local in zip(self.poses, self.local, strict=True)])


def answers(network: CorrectionNetwork, polish: Polish, scenes: Sequence[Scene], device: torch.device | str
            ) -> list[Answer]:
    """The answers to some scenes at once; ``network`` is on ``device``."""
    with torch.inference_mode():
        batch = Batch.of(list(scenes), device)
        state: State = network(batch)[-1]
        moved = corrected_outlines(batch, state.xray)
        local, poses, sigma, shift, outlines, facing = (
            tensor.double().cpu().numpy() for tensor in
            (network.local(state), state.poses, torch.exp(state.log_sigma), state.xray, *moved))
    rigid = [np.stack([nearest_rigid(pose) for pose in mine]) for mine in poses]  # float32 products drift by 1e-6
    return [_polished(polish, Answer(local[k], rigid[k], sigma[k], shift[k]), scene, (outlines[k], facing[k]))
            for k, scene in enumerate(scenes)]


def _polished(polish: Polish, answer: Answer, scene: Scene, outlines: tuple[NDArray, NDArray]) -> Answer:
    better, doubt = polish(answer.vertices, scene, outlines)
    local = np.stack([apply(invert(pose), mine) for pose, mine in zip(answer.poses, better, strict=True)])
    return Answer(local, answer.poses, answer.sigma * doubt, answer.shift)
