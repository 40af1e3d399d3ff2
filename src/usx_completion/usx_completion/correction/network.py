"""The correction network: stage after stage, nodes look around, tokens of all levels talk, and the prior moves.

Starts from the mean vertebrae where they were placed. Every stage reads what lies near the surface as it is by then
and answers with a change of each level's pose, of its modes, and of every node; and with the X-ray's displacement,
which all bodies share. The last stage also tells how sure it is of every node.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from usx_common.errors import UsxError
from usx_common.meshes import Mesh, vertex_normals
from usx_completion.correction import reading
from usx_completion.correction.nodes import NodeSet, choose_nodes
from usx_completion.correction.suggestion import (
    REACHES,
    ULTRASOUND_DATA,
    XRAY_DATA,
    BodyNodes,
    Equations,
    Suggestion,
    displacement_units,
    suggested_step,
    ultrasound_equations,
    xray_equations,
)
from usx_completion.shape_model import ShapeModel

COARSE = 96
TRUST = 0.5  # at first, in the step that near points suggest


@dataclass(frozen=True)
class StageSettings:
    """``nodes`` and ``tokens`` of a level, ``blocks`` of attention."""

    nodes: int
    tokens: int
    blocks: int

    def __post_init__(self) -> None:
        if not 8 <= self.tokens <= self.nodes or not 1 <= self.blocks <= 12:
            raise UsxError(f"a stage of {self.nodes} nodes, {self.tokens} tokens and {self.blocks} blocks cannot be "
                           "built: 8 <= tokens <= nodes, 1 <= blocks <= 12")


@dataclass(frozen=True)
class NetworkSettings:
    """``neighbours``: ultrasound points that a node looks at; ``modes``: of the shape model, at most all; ``size_sd``:
    relative, of each level along each axis on top of them: people are larger and smaller than those learned from."""

    stages: tuple[StageSettings, ...] = (StageSettings(320, 32, 2), StageSettings(1000, 96, 3),
                                         StageSettings(1000, 96, 3))
    width: int = 128
    heads: int = 4
    neighbours: int = 8
    modes: int = 40
    size_sd: float = 0.05

    def __post_init__(self) -> None:
        for name, low, high in (("width", 8, 1024), ("heads", 1, 64), ("neighbours", 1, 64), ("modes", 1, 1000),
                                ("size_sd", 0.0, 0.3)):
            if not low <= getattr(self, name) <= high:
                raise UsxError(f"network.{name} = {getattr(self, name)} must be within {low} .. {high}")
        if self.width % self.heads:
            raise UsxError(f"network.width = {self.width} must be a multiple of network.heads = {self.heads}")
        if not self.stages:
            raise UsxError("network.stages is empty; at least one stage is needed")


@dataclass(frozen=True)
class State:
    """The prior as corrected so far; B spines, L levels, K modes, V vertices, mm and radians.

    ``poses`` (B, L, 4, 4) level to spine; ``scores`` (B, L, K) in standard deviations; ``offsets`` (B, L, V, 3) in the
    level's frame on top of the modes; ``xray`` (B, 3) correction of the outlines; ``log_sigma`` (B, L, V).
    """

    poses: Tensor
    scores: Tensor
    offsets: Tensor
    xray: Tensor
    log_sigma: Tensor


class CorrectionNetwork(nn.Module):
    """Answers for five levels at once. Its buffers hold the shape model it corrects."""

    means: Tensor
    normals: Tensor
    modes: Tensor
    mode_sd: Tensor
    faces: Tensor
    edges: Tensor
    shown: Tensor

    def __init__(self, model: ShapeModel, settings: NetworkSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or NetworkSettings()
        self.settings = replace(self.settings, modes=min(self.settings.modes, model.mode_count))
        count = self.settings.modes
        normals = np.stack([vertex_normals(Mesh(mean, model.faces)) for mean in model.means])
        sizes = _sizes(model, self.settings.size_sd)
        self._keep(means=model.means, normals=normals, modes=np.concatenate([model.modes[:count], sizes]),
                   mode_sd=np.pad(model.mode_sd[:, :count], ((0, 0), (0, len(sizes))), constant_values=1.0))
        self.register_buffer("faces", torch.from_numpy(model.faces.astype(np.int64)), persistent=False)
        self.register_buffer("shown", torch.from_numpy(model.xray_bodies.copy()), persistent=False)
        self.register_buffer("edges", torch.from_numpy(_edges(model.faces)), persistent=False)
        self.stages = nn.ModuleList(
            Stage(self, choose_nodes(model, stage.nodes, stage.tokens), stage, REACHES[min(k, len(REACHES) - 1)])
            for k, stage in enumerate(self.settings.stages))

    def _keep(self, **arrays: Any) -> None:
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(np.asarray(array, np.float32)), persistent=False)

    def forward(self, batch: reading.Batch) -> list[State]:
        """The states after every stage; the last is the answer."""
        poses = batch.poses
        spines, levels = poses.shape[:2]
        zero = poses.new_zeros
        state = State(poses, zero(spines, levels, len(self.modes)), zero(spines, levels, self.means.shape[1], 3),
                      zero(spines, 3), zero(spines, levels, self.means.shape[1]))
        states = []
        for stage in self.stages:
            state = stage(batch, _detached(state))
            states.append(state)
        return states

    def local(self, state: State, rows: Tensor | slice = slice(None)) -> Tensor:
        """(B, L, V, 3) vertices (or some ``rows`` of them) in the levels' frames, mm."""
        scaled = state.scores * self.mode_sd
        moved = (scaled @ self.modes[:, rows].flatten(1)).unflatten(-1, (-1, 3))
        return self.means[:, rows] + moved + state.offsets[:, :, rows]

    def vertices(self, state: State) -> Tensor:
        """(B, L, V, 3) vertices in frame spine, mm."""
        return _placed(self.local(state), state.poses)


@dataclass(frozen=True)
class Seen:
    """What a stage saw: ``features`` (B, L, M, hidden) of nodes at ``places`` (B, L, M, 3) mm, the step ``suggested``,
    ``hint`` (B, L, 6 + K + 5) all of it as a level is told, and the ``equations`` of points and of outlines."""

    features: Tensor
    suggested: Suggestion
    hint: Tensor
    places: Tensor
    equations: list[Equations]


class Stage(nn.Module):
    """One round of looking, talking and moving."""

    vertices: Tensor
    cluster: Tensor
    spread_rows: Tensor
    spread_weights: Tensor
    token_rows: Tensor
    token_weights: Tensor
    share: Tensor
    body: Tensor
    shown: Tensor
    basis: Tensor

    def __init__(self, network: CorrectionNetwork, nodes: NodeSet, settings: StageSettings,
                 reach: tuple[float, float]) -> None:
        super().__init__()
        self._network = [network]  # in a list, so that it is no child of its own child
        whole, levels = network.settings, len(network.means)
        self._coarse = np.linspace(0, settings.nodes - 1, min(COARSE, settings.nodes)).astype(np.int64)
        for name in ("vertices", "cluster", "spread_rows", "spread_weights", "token_rows", "token_weights"):
            self.register_buffer(name, torch.from_numpy(getattr(nodes, name)), persistent=False)
        shown = network.shown[:, self.vertices]
        body = torch.nonzero(shown.any(dim=0))[:, 0]
        self.register_buffer("body", body, persistent=False)
        self.register_buffer("shown", shown[:, body], persistent=False)
        scaled = network.mode_sd[:, :, None, None] * network.modes[None, :, self.vertices]
        self.register_buffer("basis", scaled, persistent=False)
        share = torch.zeros(settings.tokens, settings.nodes)
        share[self.cluster, torch.arange(settings.nodes)] = 1.0
        self.register_buffer("share", share / share.sum(dim=1, keepdim=True), persistent=False)
        modes = len(network.modes)
        hidden, width, hint = 64, whole.width, 6 + modes + 5
        self.point = _mlp(reading.ULTRASOUND_FEATURES, 32, 48)
        self.outline = _mlp(reading.XRAY_FEATURES, 32, 32)
        self.place = nn.Parameter(torch.randn(settings.nodes, 32) * 0.1)
        self.node = _mlp(48 * 2 + 32 + 32 + 12, hidden * 2, hidden)
        self.belief = nn.Linear(hidden, 2)
        self.token = nn.Linear(hidden * 2, width)
        self.token_place = nn.Parameter(torch.randn(levels, settings.tokens, width) * 0.02)
        self.hint = nn.Linear(hint, width)
        self.trust = nn.Parameter(torch.full((6 + modes,), TRUST))
        self.trust_xray = nn.Parameter(torch.full((3,), TRUST))
        self.data = nn.Parameter(torch.log(torch.tensor([ULTRASOUND_DATA, XRAY_DATA])))
        self.reach = nn.Parameter(torch.log(torch.tensor(reach)))
        self.stillness = nn.Parameter(torch.zeros(3))
        self.level = nn.Parameter(torch.randn(levels, width) * 0.02)
        self.spine = nn.Parameter(torch.randn(1, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, whole.heads) for _ in range(settings.blocks))
        self.norm = nn.LayerNorm(width)
        self.to_node = _mlp(hidden + width * 2, width, 6)
        self.to_level = _mlp(width * 2 + hint, width, 6 + modes)
        self.to_spine = _mlp(width + 3, 64, 3)
        for head in (self.to_node, self.to_level, self.to_spine):  # at first only what is suggested is done
            for parameter in head[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(self, batch: reading.Batch, state: State) -> State:
        """The state after this stage."""
        seen = self._look(batch, state)
        tokens, levels, spine = self._talk(seen)
        return self._move(state, seen, tokens, torch.cat([levels, tokens.mean(dim=2), seen.hint], dim=-1),
                          torch.cat([spine, seen.suggested.xray], dim=-1))

    def _look(self, batch: reading.Batch, state: State) -> Seen:
        """What every node knows, and the step that this suggests."""
        network = self._network[0]
        places = network.local(state, self.vertices)
        normals = network.normals[:, self.vertices]
        near, exist = reading.see_ultrasound(batch, state.poses, places, normals, self._coarse,
                                             network.settings.neighbours)
        told = self.point(near) * exist[..., None]
        count = exist.sum(dim=3, keepdim=True).clamp(min=1)
        points = torch.cat([told.amax(dim=3), told.sum(dim=3) / count], dim=-1)
        rim, shared = reading.see_xray(batch, state.poses, places, state.xray)
        outline = self.outline(rim)
        spines = len(places)
        fixed = torch.cat([network.means[:, self.vertices] * 0.05, normals], dim=-1).expand(spines, -1, -1, -1)
        change = (places - network.means[:, self.vertices]) * reading.CENTIMETRE
        rotation = state.poses[..., :3, :3].flatten(2)[..., [5, 2, 1]]  # tilt, and little of the rest
        rotation = rotation[:, :, None].expand(-1, -1, places.shape[2], -1)
        embedding = self.place.expand(spines, places.shape[1], -1, -1)
        features = self.node(torch.cat([points, outline, embedding, fixed, change, rotation], dim=-1))
        believed = 2.0 * torch.sigmoid(self.belief(features))
        data, reach = self.data.exp(), self.reach.exp()
        equations = [ultrasound_equations(near, believed[..., 0], normals, data[0], reach[0]),
                     xray_equations((rim, shared), believed[..., 1], places, BodyNodes(self.body, self.shown), data[1],
                                    reach[1])]
        suggested = suggested_step(equations, places, self.basis, state.scores, state.xray, self.stillness.exp())
        told_of_xray = suggested.xray[:, None].expand(-1, places.shape[1], -1)
        hint = torch.cat([suggested.step, suggested.shares, told_of_xray], dim=-1)
        return Seen(features, suggested, hint, places, equations)

    def _talk(self, seen: Seen) -> tuple[Tensor, Tensor, Tensor]:
        """(B, L, T, width) tokens, (B, L, width) levels and (B, width) spine, after attention among all of them."""
        features = seen.features
        spines, levels = features.shape[:2]
        mean = torch.einsum("tm,blmh->blth", self.share, features)
        most = features.new_full((*mean.shape[:2], len(self.share), features.shape[-1]), -1e9)
        index = self.cluster[None, None, :, None].expand_as(features)
        most = most.scatter_reduce(2, index, features, "amax")
        tokens = self.token(torch.cat([mean, most], dim=-1)) + self.token_place
        count = tokens.shape[2]
        everything = torch.cat([tokens.flatten(1, 2), self.level + self.hint(seen.hint),
                                self.spine.expand(spines, -1, -1)], dim=1)
        for block in self.blocks:
            everything = block(everything)
        everything = self.norm(everything)
        cut = levels * count
        return everything[:, :cut].unflatten(1, (levels, count)), everything[:, cut:-1], everything[:, -1]

    def _move(self, state: State, seen: Seen, tokens: Tensor, levels: Tensor, spine: Tensor) -> State:
        told = (tokens[:, :, self.token_rows] * self.token_weights[..., None]).sum(dim=3)
        whole_level = levels[:, :, None, :told.shape[-1]].expand_as(told)
        answer = self.to_node(torch.cat([seen.features, told, whole_level], dim=-1))
        whole = self.to_level(levels) + self.trust * seen.suggested.step
        displaced = displacement_units(spine) * (self.trust_xray * seen.suggested.xray + self.to_spine(spine))
        moved = State(state.poses @ _motion(whole[..., :6]), state.scores + whole[..., 6:], state.offsets,
                      state.xray + displaced, state.log_sigma)
        shares = torch.sigmoid(answer[..., 4:] - 2.0)
        nodes = 5.0 * answer[..., :3] + self._rest_of_the_way(state, moved, seen, shares)
        spread = (nodes[:, :, self.spread_rows] * self.spread_weights[..., None]).sum(dim=3)
        sigma = (answer[:, :, self.spread_rows, 3] * self.spread_weights).sum(dim=3)
        return State(moved.poses, moved.scores, moved.offsets + spread, moved.xray, sigma)

    def _rest_of_the_way(self, state: State, moved: State, seen: Seen, shares: Tensor) -> Tensor:
        """(B, L, M, 3) mm: ``shares`` (B, L, M, 2) of what pose and modes left of the ways that the equations ask for,
        along the normal to points, and in the X-ray's plane to outlines."""
        network = self._network[0]
        before = _placed(seen.places, state.poses)
        after = _placed(network.local(moved, self.vertices), moved.poses)
        gone = torch.einsum("blmi,blij->blmj", after - before, state.poses[..., :3, :3])
        corrected = (moved.xray - state.xray) / displacement_units(moved.xray)
        total = torch.zeros_like(gone)
        for part, share in zip(seen.equations, shares.unbind(dim=-1), strict=True):
            rows = slice(None) if part.nodes is None else part.nodes
            left = part.residual
            if part.shared is not None:
                left = left - torch.einsum("blmx,bx->blm", part.shared, corrected)
            left = left / reading.CENTIMETRE - (gone[:, :, rows] * part.facing).sum(dim=-1)
            way = (share[:, :, rows] * part.weight.clamp(max=1.0) * left)[..., None] * part.facing
            total = total + way if part.nodes is None else total.index_add(2, part.nodes, way)
        return total


class Block(nn.Module):
    """Attention among all tokens, then each by itself; normalised before (Xiong et al., ICML 2020)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, width) -> the same."""
        spines, count, width = tokens.shape
        packed = self.query(self.norm(tokens)).reshape(spines, count, 3, self.heads, width // self.heads)
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.out(mixed.transpose(1, 2).reshape(spines, count, width))
        return tokens + self.feed(self.after(tokens))


def _sizes(model: ShapeModel, relative_sd: float) -> NDArray[np.float64]:
    """(3, V, 3) mm by which a usual vertebra grows along each axis for one SD of its size; none for an SD of 0."""
    usual = model.means.mean(axis=0)
    return relative_sd * usual[None] * np.eye(3)[:, None, :] if relative_sd > 0.0 else np.zeros((0, *usual.shape))


def _edges(faces: NDArray) -> NDArray[np.int64]:
    """(E, 2) each edge of the triangles once."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return np.unique(np.sort(pairs, axis=1), axis=0).astype(np.int64)


def _mlp(before: int, between: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(before, between), nn.GELU(), nn.Linear(between, after))


def _placed(places: Tensor, poses: Tensor) -> Tensor:
    """Points (B, L, M, 3) of the levels' frames in frame spine."""
    return places @ poses[..., :3, :3].transpose(-1, -2) + poses[..., None, :3, 3]


def _motion(numbers: Tensor) -> Tensor:
    """(..., 4, 4) rigid motions of (..., 6): rotation vector in 0.1 rad, translation in 5 mm (in the moved frame)."""
    turn, move = numbers[..., :3] * 0.1, numbers[..., 3:] * 5.0
    angle = (turn.square().sum(dim=-1, keepdim=True) + 1e-12).sqrt()
    x, y, z = (turn / angle).unbind(dim=-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    sin, cos = torch.sin(angle)[..., None], torch.cos(angle)[..., None]
    rotation = torch.eye(3, device=numbers.device) + sin * cross + (1.0 - cos) * (cross @ cross)
    upper = torch.cat([rotation, move[..., None]], dim=-1)
    last = upper.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*upper.shape[:-2], 1, 4)
    return torch.cat([upper, last], dim=-2)


def _detached(state: State) -> State:
    """The same numbers; each stage learns from its own answer."""
    return State(*(getattr(state, name).detach() for name in ("poses", "scores", "offsets", "xray", "log_sigma")))
