"""Completion of vertebrae by a trained network of the paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_completion.data.sampling_points import farthest_points_fast
from usx_completion.paper.clouds import CloudSettings
from usx_completion.paper.network import PaperNetwork
from usx_completion.paper.settings import PaperNetworkSettings
from usx_completion.training.configuration import build
from usx_completion.training.weights import BadWeights, fill, load_weights

FORMAT = "usx paper network 1"
COMPLETED_POINTS = 4096


class PaperCompletion:
    """A network ready to complete. ``card``: what it was trained on and how; see `load`."""

    def __init__(self, network: PaperNetwork, clouds: CloudSettings | None = None, card: dict[str, str] | None = None,
                 device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._network = network.to(self._device).eval()
        self._clouds = clouds or CloudSettings()
        self.card = card or {}

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> PaperCompletion:
        """A network from safetensors. Raises BadWeights for a file missing, corrupt, foreign, or of wrong shapes."""
        tensors, card = load_weights(Path(path), FORMAT)
        try:
            settings = build(PaperNetworkSettings, _json(card, "network"), "network")
            clouds = build(CloudSettings, _json(card, "clouds"), "clouds")
        except UsxError as error:
            raise BadWeights(f"{path}: {error}") from error
        if card.get("variant") != settings.variant:
            raise BadWeights(f"{path}: variant {card.get('variant')!r} does not agree with the settings")
        network = PaperNetwork(settings)
        fill(network, tensors, Path(path))
        return cls(network, clouds, card, device)

    @property
    def variant(self) -> str:
        """"baseline", "ef", "lf" or "ef_lf"."""
        return self._network.settings.variant

    @torch.no_grad()
    def complete(self, partial: NDArray, filled: NDArray | None = None, seed: int | None = None) -> NDArray[np.float64]:
        """The complete vertebra (4096, 3) of a partial cloud (P, 3) and the X-ray's body (Nx, 3), all normalised.

        The latent code is its mean, so the answer is always the same; a ``seed`` draws it, as the authors do. Clouds
        of other sizes than those trained on are thinned to furthest points or repeated. A network whose output has
        fewer points looks several times, at other points of the input each time; the answer is then the furthest points
        of all its refined ones. Raises UsxError for clouds that are empty, not finite, of another shape, or missing.
        """
        settings = self._network.settings
        passes = -(-COMPLETED_POINTS // settings.output_points)
        needs_xray = settings.early_fusion or settings.late_fusion
        if needs_xray and filled is None:
            raise UsxError(f"a network of variant {settings.variant} needs the X-ray's cloud")
        shown = _shown(partial, self._clouds.partial_points, passes, "partial")
        bodies = _shown(filled, self._clouds.xray_points, passes, "X-ray") if needs_xray else None
        noise = None
        if seed is not None:
            drawn = np.random.default_rng(seed).standard_normal((1, settings.latent)).astype(np.float32)
            noise = torch.from_numpy(drawn).to(self._device)
        refined = []
        for number in range(passes):
            body = None if bodies is None else self._put(bodies[number])
            stages = self._network(self._put(shown[number]), body, noise)
            if passes == 1 and settings.output_points == COMPLETED_POINTS:
                return stages.output[0].cpu().numpy().astype(np.float64)
            refined.append(stages.refined[0].cpu().numpy().astype(np.float64))
        together = np.concatenate(refined)
        return together[farthest_points_fast(together, COMPLETED_POINTS)]

    def _put(self, cloud: NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(cloud).unsqueeze(0).to(self._device)


def _shown(cloud: Any, count: int, passes: int, name: str) -> NDArray[np.float32]:
    """(passes, count, 3): even parts of a cloud, one for each pass; they share points where there are too few, and
    repeat them only where the whole cloud has too few."""
    points = np.asarray(cloud, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
        raise UsxError(f"the {name} cloud has shape {points.shape}; it must be (N, 3) with one point or more")
    if not np.isfinite(points).all():
        raise UsxError(f"the {name} cloud holds numbers that are not finite")
    if passes == 1 and len(points) == count:
        return points[None].astype(np.float32)
    order = farthest_points_fast(points, min(len(points), passes * count))
    parts = []
    for number in range(passes):
        others = np.delete(order, np.s_[number::passes])
        parts.append(points[np.resize(np.r_[order[number::passes], others], count)])
    return np.stack(parts).astype(np.float32)


def _json(card: dict[str, str], key: str) -> Any:
    try:
        return json.loads(card.get(key, ""))
    except json.JSONDecodeError as error:
        raise UsxError(f"the card's {key!r} is no JSON") from error
