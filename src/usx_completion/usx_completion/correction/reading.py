"""What a node of the prior sees: the ultrasound points and the X-ray outline near it, in its level's frame.

Arrays of a batch: B spines, L levels, M nodes. Lengths are given to the network in centimetres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from usx_completion.correction.scene import Scene

CENTIMETRE = 0.1
SHIFT_MM, TURN_RAD = 3.0, 0.05  # units in which the X-ray's displacement is told
REACH_MM = 22.0
FAR_MM = 30.0
ULTRASOUND_FEATURES = 11
XRAY_FEATURES = 11


@dataclass(frozen=True)
class Batch:
    """Scenes as tensors on one device: points as a list (their number differs), the rest stacked (B first)."""

    points: list[Tensor]
    labels: list[Tensor]
    outlines: Tensor
    outline_normals: Tensor
    shown: Tensor
    plane: Tensor
    poses: Tensor

    @staticmethod
    def of(scenes: list[Scene], device: torch.device | str = "cpu") -> Batch:
        """The scenes on a device, float32."""
        def stack(name: str) -> Tensor:
            return torch.from_numpy(np.stack([getattr(scene, name) for scene in scenes])).to(device)

        return Batch([torch.from_numpy(scene.points).to(device) for scene in scenes],
                     [torch.from_numpy(scene.labels.astype(np.int64)).to(device) for scene in scenes],
                     stack("outlines"), stack("outline_normals"), stack("shown"), stack("plane"),
                     stack("poses").float())


def see_ultrasound(batch: Batch, poses: Tensor, places: Tensor, normals: Tensor, coarse: NDArray, count: int
                   ) -> tuple[Tensor, Tensor]:
    """Features (B, L, M, count, 11) of the nearest ultrasound points of each node, and which of them exist.

    ``places`` (B, L, M, 3) mm and ``normals`` (L, M, 3) in the levels' frames; ``coarse``: some of the nodes, by which
    points are told whose they are. A point tells its offset, along the normal too, whether it carries the level's own
    label, another or none, and how much nearer it is to this level than to the others.
    """
    world = places @ poses[..., :3, :3].transpose(-1, -2) + poses[..., None, :3, 3]
    features, exist = [], []
    for b in range(len(batch.points)):
        if len(batch.points[b]) == 0:  # an X-ray alone
            features.append(world.new_zeros((*world.shape[1:3], count, ULTRASOUND_FEATURES)))
            exist.append(torch.zeros((*world.shape[1:3], count), dtype=torch.bool, device=world.device))
            continue
        rows, gaps = _nearest_of_spine(batch.points[b], world[b], coarse, count)
        features.append(_point_features(batch, b, rows, gaps, poses[b], world[b], normals))
        exist.append(rows >= 0)
    return torch.stack(features), torch.stack(exist)


def _nearest_of_spine(points: Tensor, world: Tensor, coarse: NDArray, count: int) -> tuple[Tensor, Tensor]:
    """Rows (L, M, count) of the nearest points of each node, -1 where none is near; (N, L) distance to each level."""
    levels, nodes = world.shape[:2]
    some = world[:, coarse].reshape(-1, 3)
    gaps = torch.cdist(points, some).reshape(len(points), levels, -1).amin(dim=2)
    rows = torch.full((levels, nodes, count), -1, dtype=torch.int64)
    near = (gaps < REACH_MM).cpu().numpy()
    cloud, spots = points.cpu().numpy(), world.cpu().numpy()
    for level in range(levels):
        own = np.flatnonzero(near[:, level])
        if len(own) == 0:
            continue
        found = min(count, len(own))
        distance, nearest = cKDTree(cloud[own]).query(spots[level], k=np.arange(1, found + 1))
        nearest = own[np.minimum(nearest, len(own) - 1)]
        rows[level, :, :found] = torch.from_numpy(np.where(distance < FAR_MM, nearest, -1))
    return rows.to(points.device), gaps


def _point_features(batch: Batch, b: int, rows: Tensor, gaps: Tensor, poses: Tensor, world: Tensor, normals: Tensor
                    ) -> Tensor:
    levels = rows.shape[0]
    known = rows.clamp(min=0)
    offset = (batch.points[b][known] - world[:, :, None]) * CENTIMETRE
    offset = torch.einsum("lmki,lij->lmkj", offset, poses[:, :3, :3])
    along = (offset * normals[:, :, None]).sum(dim=-1, keepdim=True)
    distance = offset.norm(dim=-1, keepdim=True)
    label = batch.labels[b][known]
    own_level = torch.arange(1, levels + 1, device=rows.device)[:, None, None]
    relation = torch.stack([label == own_level, (label != own_level) & (label > 0), label == 0], dim=-1).float()
    own = torch.gather(gaps.T[:, None].expand(-1, rows.shape[1], -1), 2, known.reshape(levels, rows.shape[1], -1))
    others = torch.stack([torch.cat([gaps[:, :k], gaps[:, k + 1:]], dim=1).amin(dim=1) for k in range(levels)])
    other = torch.gather(others[:, None].expand(-1, rows.shape[1], -1), 2, known)
    rival = torch.stack([own, (other - own).clamp(-20.0, 20.0)], dim=-1) * CENTIMETRE
    exists = (rows >= 0).float()[..., None]
    return torch.cat([offset, along, distance, relation, rival, exists], dim=-1) * exists


def see_xray(batch: Batch, poses: Tensor, places: Tensor, correction: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, L, M, 11) of the two nearest outline points of each node's own body, projected along the X-ray; and
    (B, L, M, 3) by how much less is left to go to the nearest, cm, for a further displacement of 3 mm, 3 mm, 0.05 rad.

    ``correction`` (B, 3): how far the outlines are to be moved first: posterior, cranial (mm), turn (rad) about the
    middle of all bodies. Zeros where the X-ray does not show the body.
    """
    axes = batch.plane[:, 1:]
    world = places @ poses[..., :3, :3].transpose(-1, -2) + poses[..., None, :3, 3]
    flat = torch.einsum("blmi,bki->blmk", world - batch.plane[:, None, None, 0], axes[:, 1:])
    outlines, outward = corrected_outlines(batch, correction)
    rows = torch.cdist(flat, outlines).topk(2, dim=-1, largest=False).indices
    index = rows[..., None].expand(-1, -1, -1, -1, 2)
    near = torch.gather(outlines[:, :, None].expand(-1, -1, flat.shape[2], -1, -1), 3, index)
    facing = torch.gather(outward[:, :, None].expand(-1, -1, flat.shape[2], -1, -1), 3, index)
    offset = (near - flat[..., None, :]) * CENTIMETRE
    depth = (offset * facing).sum(dim=-1)
    first, arm = facing[..., 0, :], (near[..., 0, :] - _middle(batch)[:, None, None] - correction[:, None, None, :2])
    lever = first[..., 1] * arm[..., 0] - first[..., 0] * arm[..., 1]
    less = -torch.cat([SHIFT_MM * first, TURN_RAD * lever[..., None]], dim=-1) * CENTIMETRE
    # in the level's own posterior and cranial directions, so that its tilt does not matter
    turn = torch.einsum("bki,blij->blkj", axes[:, 1:], poses[..., :3, :3])[..., 1:]
    offset = torch.einsum("blmnk,blkj->blmnj", offset, turn)
    facing = torch.einsum("blmnk,blkj->blmnj", facing, turn)
    shown = batch.shown[:, :, None, None].float().expand(-1, -1, flat.shape[2], -1)
    parts = [offset.flatten(3), facing.flatten(3), depth.clamp(-4.0, 4.0), torch.ones_like(shown)]
    return torch.cat(parts, dim=-1).clamp(-4.0, 4.0) * shown, less * shown


def corrected_outlines(batch: Batch, correction: Tensor) -> tuple[Tensor, Tensor]:
    """Outlines and their normals (B, L, 72, 2) after the correction of `see_xray`."""
    middle = _middle(batch)
    cos, sin = torch.cos(correction[:, 2]), torch.sin(correction[:, 2])
    turn = torch.stack([torch.stack([cos, -sin], dim=-1), torch.stack([sin, cos], dim=-1)], dim=-2)
    centred = batch.outlines - middle[:, None, None]
    moved = torch.einsum("bij,blpj->blpi", turn, centred) + (middle + correction[:, :2])[:, None, None]
    return moved, torch.einsum("bij,blpj->blpi", turn, batch.outline_normals)


def _middle(batch: Batch) -> Tensor:
    """(B, 2) of the bodies that the X-ray shows, in its plane, mm."""
    shown = batch.shown.float()[..., None]
    return (batch.outlines.mean(dim=2) * shown).sum(dim=1) / shown.sum(dim=1).clamp(min=1.0)
