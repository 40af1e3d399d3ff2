"""The step of pose and modes that what a level's nodes see asks for: one Gauss-Newton step, weighted by belief.

Point-to-plane equations (Chen and Medioni, 1992) of the ultrasound point nearest to each node, and of the X-ray's
outline nearest to each node on the rim of the body. It can be differentiated, so a network learns whom to believe.
Lengths in centimetres; unknowns in units of their prior: 0.1 rad, 5 mm, and one standard deviation of each mode.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from usx_completion.correction.reading import CENTIMETRE

REACH = 0.8  # cm; farther points hardly count
ULTRASOUND_DATA, XRAY_DATA = 60.0, 30.0  # neighbours share their error: so many independent places are seen at most
NOISE = 0.1  # cm
RIM_BINS, RIM_MM = 36, 1.0


@dataclass(frozen=True)
class Equations:
    """Of each node: ``facing`` (B, L, M, 3) direction in the level's frame, ``residual`` (B, L, M) how far it is to go
    along it, ``weight`` (B, L, M), and ``data``: how many independent ones there are at most."""

    facing: Tensor
    residual: Tensor
    weight: Tensor
    data: float


def ultrasound_equations(near: Tensor, believed: Tensor, normals: Tensor) -> Equations:
    """From the features (B, L, M, n, 11) of `reading.see_ultrasound`; ``believed`` (B, L, M)."""
    gap = near[..., 0, :3].norm(dim=-1)
    rival = near[..., 0, 9] + 0.5 > 0.0  # not much nearer to another level
    weight = believed * rival * near[..., 0, 10] * torch.exp(-(gap / REACH).square())
    return Equations(normals.expand(*gap.shape, 3), near[..., 0, 3], weight, ULTRASOUND_DATA)


def xray_equations(outline: Tensor, believed: Tensor, places: Tensor, body: Tensor) -> Equations:
    """From the features (B, L, M, 11) of `reading.see_xray`; ``body`` (M,) tells which nodes lie on the body."""
    facing = torch.nn.functional.pad(outline[..., 4:6], (1, 0))
    gap = outline[..., :2].norm(dim=-1)
    weight = believed * rim_of_body(places, body) * outline[..., 10] * torch.exp(-(gap / (2.0 * REACH)).square())
    return Equations(facing, outline[..., 8], weight, XRAY_DATA)


def rim_of_body(places: Tensor, body: Tensor) -> Tensor:
    """(B, L, M) 1 for nodes of the body that lie outermost, seen from the side, in one of 36 directions; else 0."""
    flat = places[:, :, body, 1:]
    offset = flat - 0.5 * (flat.amin(dim=2, keepdim=True) + flat.amax(dim=2, keepdim=True))
    radius = offset.norm(dim=-1)
    turns = torch.atan2(offset[..., 1], offset[..., 0]) / (2.0 * torch.pi) + 0.5
    bins = (turns * RIM_BINS).long().clamp(max=RIM_BINS - 1)
    most = radius.new_zeros(*radius.shape[:2], RIM_BINS).scatter_reduce(2, bins, radius, "amax")
    result = places.new_zeros(places.shape[:3])
    result[:, :, body] = (radius > torch.gather(most, 2, bins) - RIM_MM).float()
    return result


def suggested_step(equations: list[Equations], places: Tensor, modes: Tensor, scores: Tensor) -> Tensor:
    """(B, L, 6 + K + n) the step in units of the prior, and the share of nodes that each of n kinds of equations has.

    ``places`` (B, L, M, 3) mm; ``modes`` (L, K, M, 3) mm of one standard deviation; ``scores`` (B, L, K) so far.
    """
    arm = places * CENTIMETRE
    size = 6 + scores.shape[-1]
    system = torch.eye(size, device=places.device).expand(*scores.shape[:2], size, size)
    asked = -torch.cat([scores.new_zeros(*scores.shape[:2], 6), scores], dim=-1)
    shares = []
    for part in equations:
        along = CENTIMETRE * torch.einsum("lkmc,blmc->blmk", modes, part.facing)
        jacobian = torch.cat([torch.cross(arm, part.facing, dim=-1) * 0.1, part.facing * 0.5, along], dim=-1)
        count = part.weight.sum(dim=-1, keepdim=True)
        weight = part.weight * (part.data / count.clamp(min=part.data)) / NOISE**2
        weighted = (jacobian * weight[..., None]).transpose(-1, -2)
        system = system + weighted @ jacobian
        asked = asked + (weighted @ part.residual[..., None])[..., 0]
        shares.append(count / places.shape[2])
    return torch.cat([torch.linalg.solve(system, asked), *shares], dim=-1)
