"""What the correction network is trained for: distance along the true normal first, then place, sigma and X-ray."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from usx_completion.correction.network import CorrectionNetwork, State
from usx_completion.correction.reading import Batch, corrected_outlines

FAR_MM = 5.0  # what is lost counts no more than in proportion


@dataclass(frozen=True)
class LossSettings:
    """Weights of mm; ``far`` of mm^2, which asks for the mean where a surface cannot be known, as squared metrics do.
    ``stages``: of the stages, first to last."""

    along_normal: float = 1.0
    far: float = 0.2
    place: float = 0.3
    sigma: float = 0.2
    xray: float = 0.05
    smooth: float = 0.3
    stages: tuple[float, ...] = (0.3, 0.6, 1.0)


def correction_loss(network: CorrectionNetwork, batch: Batch, states: list[State], truth: Tensor, displaced: Tensor,
                    settings: LossSettings) -> dict[str, Tensor]:
    """Parts in mm of the last stage and the weighted "total" of all.

    ``truth`` (B, L, V, 3) mm, frame spine; ``displaced`` (B, L, 2) as of `examples.Example`.
    """
    faces = network.faces
    normals = true_normals(truth, faces)
    parts: dict[str, Tensor] = {}
    total = truth.new_zeros(())
    for weight, state in zip(settings.stages, states, strict=True):
        error = network.vertices(state) - truth
        along = (error * normals).sum(dim=-1)
        normal, place = along.abs().mean(), error.norm(dim=-1).mean()
        far = nn.functional.huber_loss(along, torch.zeros_like(along), delta=FAR_MM)
        bend = _bend(network, state)
        sigma = _likelihood(along.detach(), state.log_sigma)
        xray = _displacement(batch, state, displaced)
        total = total + weight * (settings.along_normal * normal + settings.place * place + settings.far * far
                                  + settings.smooth * bend + settings.sigma * sigma + settings.xray * xray)
        parts = {"normal": normal, "place": place, "sigma": sigma, "xray": xray, "smooth": bend}
    return {"total": total, **parts}


def true_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """(B, L, V, 3) unit normals of vertices, outward, weighted by area."""
    corners = vertices[:, :, faces]
    crossed = torch.cross(corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :], dim=-1)
    normals = torch.zeros_like(vertices)
    for corner in range(3):
        normals.index_add_(2, faces[:, corner], crossed)
    return torch.nn.functional.normalize(normals, dim=-1)


def _likelihood(along: Tensor, log_sigma: Tensor) -> Tensor:
    """Negative log likelihood of normal errors, sigma in mm."""
    return (0.5 * (along * torch.exp(-log_sigma)).square() + log_sigma).mean()


def _bend(network: CorrectionNetwork, state: State) -> Tensor:
    """How much offsets differ along edges: mean over edges, mm."""
    edges = network.edges
    return (state.offsets[:, :, edges[:, 0]] - state.offsets[:, :, edges[:, 1]]).norm(dim=-1).mean()


def _displacement(batch: Batch, state: State, displaced: Tensor) -> Tensor:
    """How far the corrected outlines' middles are from the true bodies', mm; nothing where no body is shown.

    A mean over all levels, so that a batch in parts has the mean of the parts.
    """
    corrected, _ = corrected_outlines(batch, state.xray)
    gap = corrected.mean(dim=2) - batch.outlines.mean(dim=2) - displaced
    return ((gap.square().sum(dim=-1) + 1e-6).sqrt() * batch.shown).mean()
