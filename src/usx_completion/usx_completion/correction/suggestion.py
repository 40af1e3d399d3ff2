"""The step that what the nodes see asks for: one Gauss-Newton step of all levels and of the X-ray, weighted by belief.

Point-to-plane equations (Chen and Medioni, 1992) of the ultrasound point nearest to each node, and of the X-ray's
outline nearest to each node on the rim of the body. The X-ray's displacement is shared by all bodies, so it is solved
for with them (Schur complement). It can be differentiated: a network learns whom to believe. Lengths in centimetres;
unknowns in units of their prior: 0.1 rad, 5 mm, one standard deviation of each mode; 3 mm and 0.05 rad for the X-ray.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from usx_completion.correction.reading import CENTIMETRE, SHIFT_MM, TURN_RAD

REACHES = ((0.8, 1.6), (0.5, 1.0), (0.4, 0.8))  # cm, at first, stage by stage: what is farther along hardly counts
BESIDE = 0.25  # cm
ULTRASOUND_DATA, XRAY_DATA = 60.0, 30.0  # at first; neighbours share their error: so many independent places at most
NOISE = 0.1  # cm
RIM_BINS, RIM_MM = 36, 1.0


@dataclass(frozen=True)
class Equations:
    """Of N nodes: ``facing`` (B, L, N, 3) direction in the level's frame, ``residual`` (B, L, N) how far it is to go
    along it, ``weight`` (B, L, N), ``data``: how many independent ones there are at most; ``nodes`` (N,) which of the
    stage's nodes they are of (None: all), ``shared`` (B, L, N, 3) what the X-ray's displacement adds, or None."""

    facing: Tensor
    residual: Tensor
    weight: Tensor
    data: Tensor
    nodes: Tensor | None = None
    shared: Tensor | None = None


@dataclass(frozen=True)
class Suggestion:
    """``step`` (B, L, 6 + K) of pose and modes and ``xray`` (B, 3) of its displacement, in units of the prior;
    ``shares`` (B, L, n): how much of the nodes each of n kinds of equations has."""

    step: Tensor
    xray: Tensor
    shares: Tensor


def ultrasound_equations(near: Tensor, believed: Tensor, normals: Tensor, data: Tensor, reach: Tensor
                         ) -> Equations:
    """From the features (B, L, M, n, 11) of `reading.see_ultrasound`; ``believed`` (B, L, M); ``reach`` () cm."""
    along = near[..., 0, 3]
    beside = near[..., 0, 4].square() - along.square()  # an unseen side has points near it, but not opposite to it
    rival = near[..., 0, 9] + 0.5 > 0.0  # not much nearer to another level
    weight = believed * rival * near[..., 0, 10] * torch.exp(-beside / BESIDE**2 - (along / reach).square())
    return Equations(normals.expand(*along.shape, 3), along, weight, data)


@dataclass(frozen=True)
class BodyNodes:
    """Nodes of vertebral bodies: ``rows`` (N,) of a stage's nodes, ``shown`` (L, N) on which levels they are part of
    what the X-ray shows."""

    rows: Tensor
    shown: Tensor


def xray_equations(seen: tuple[Tensor, Tensor], believed: Tensor, places: Tensor, body: BodyNodes, data: Tensor,
                   reach: Tensor) -> Equations:
    """From what is ``seen`` of all nodes by `reading.see_xray`, features (B, L, M, 11) and shares (B, L, M, 3);
    ``believed`` (B, L, M) and ``places`` (B, L, M, 3); ``reach`` () cm."""
    outline, shared = (part[:, :, body.rows] for part in seen)
    facing = torch.nn.functional.pad(outline[..., 4:6], (1, 0))
    gap = outline[..., :2].norm(dim=-1)
    rim = rim_of_body(places[:, :, body.rows], body.shown)
    weight = believed[:, :, body.rows] * rim * outline[..., 10] * torch.exp(-(gap / reach).square())
    return Equations(facing, outline[..., 8], weight, data, body.rows, shared)


def rim_of_body(places: Tensor, shown: Tensor) -> Tensor:
    """(B, L, N) 1 for places (B, L, N, 3) that lie outermost, seen from the side, in one of 36 directions, among those
    that are ``shown`` (L, N); else 0."""
    flat, hidden = places[..., 1:], ~shown[..., None]
    low = flat.masked_fill(hidden, torch.inf).amin(dim=2, keepdim=True)
    high = flat.masked_fill(hidden, -torch.inf).amax(dim=2, keepdim=True)
    offset = flat - 0.5 * (low + high)
    radius = offset.norm(dim=-1) * shown
    turns = torch.atan2(offset[..., 1], offset[..., 0]) / (2.0 * torch.pi) + 0.5
    bins = (turns * RIM_BINS).long().clamp(max=RIM_BINS - 1)
    most = radius.new_zeros(*radius.shape[:2], RIM_BINS).scatter_reduce(2, bins, radius, "amax")
    return (radius > torch.gather(most, 2, bins) - RIM_MM).float() * shown


def suggested_step(equations: list[Equations], places: Tensor, basis: Tensor, scores: Tensor, xray: Tensor,
                   precision: Tensor) -> Suggestion:
    """The step of least squares from ``scores`` (B, L, K) and the X-ray's displacement so far, ``xray`` (B, 3).

    ``places`` (B, L, M, 3) mm; ``basis`` (L, K, M, 3) mm of one standard deviation; ``precision`` (3,) of the prior
    of the displacement, relative to its units.
    """
    size = 6 + scores.shape[-1]
    system = torch.eye(size, device=places.device).expand(*scores.shape[:2], size, size)
    asked = -torch.cat([scores.new_zeros(*scores.shape[:2], 6), scores], dim=-1)
    common, wanted = torch.diag(precision).expand(len(xray), 3, 3), -precision * xray / displacement_units(xray)
    coupling = asked.new_zeros(*asked.shape, 3)
    shares = []
    for part in equations:
        jacobian = _jacobian(part, places, basis)
        count = part.weight.sum(dim=-1, keepdim=True)
        weight = part.weight * (part.data / torch.maximum(count, part.data)) / NOISE**2
        weighted = (jacobian * weight[..., None]).transpose(-1, -2)
        system = system + weighted @ jacobian
        asked = asked + (weighted @ part.residual[..., None])[..., 0]
        if part.shared is not None:
            coupling = coupling + weighted @ part.shared
            pulled = (part.shared * weight[..., None]).transpose(-1, -2)
            common = common + (pulled @ part.shared).sum(dim=1)
            wanted = wanted + (pulled @ part.residual[..., None])[..., 0].sum(dim=1)
        shares.append(count / places.shape[2])
    solved = torch.linalg.solve(system, torch.cat([asked[..., None], coupling], dim=-1))
    own, through = solved[..., 0], solved[..., 1:]
    rest = common - (coupling.transpose(-1, -2) @ through).sum(dim=1)
    left = wanted - torch.einsum("blkx,blk->bx", coupling, own)
    shift = torch.linalg.solve(rest, left)
    return Suggestion(own - torch.einsum("blkx,bx->blk", through, shift), shift, torch.cat(shares, dim=-1))


def displacement_units(like: Tensor) -> Tensor:
    """(3,) mm, mm, rad: units of the X-ray's displacement."""
    return like.new_tensor([SHIFT_MM, SHIFT_MM, TURN_RAD])


def _jacobian(part: Equations, places: Tensor, basis: Tensor) -> Tensor:
    """(B, L, N, 6 + K) how far each node goes along its direction for a unit of pose and modes, cm."""
    if part.nodes is not None:
        places, basis = places[:, :, part.nodes], basis[:, :, part.nodes]
    arm = places * CENTIMETRE
    along = CENTIMETRE * torch.einsum("lkmc,blmc->blmk", basis, part.facing)
    return torch.cat([torch.cross(arm, part.facing, dim=-1) * 0.1, part.facing * 0.5, along], dim=-1)
