"""What a swept curvilinear probe shows of bone, and what it shows that is not there.

Rays of every scan line meet the bone; the echo is told or missed by the angle of incidence and the depth, patchily,
since a smooth reflector returns the beam only near normal incidence (Jain and Taylor, Proc. SPIE 5373, 2004). Found
points are spread by the thickness of the response, placed by poses that are wrong, and joined by clutter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.special import ndtr

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_completion.data.observed import SeenPoints
from usx_completion.data.setting_checks import check_ranges, check_settings
from usx_completion.data.sweep_path import Frames, SweepSettings, TrackingErrors, believed, lead_probe
from usx_phantom.raycast import TriangleTree


@dataclass(frozen=True)
class EchoSettings:
    """How bone echoes are told. Pairs are (low, high) of a uniform draw per sweep. mm and degrees.

    ``incidence_deg``: angle at which half of the echoes are lost, less by ``fading_deg_per_cm`` below 30 mm of depth,
    over a band of ``softness_deg``; ``patch``: frames and lines over which echoes come and go together.
    """

    incidence_deg: tuple[float, float] = (50.0, 70.0)
    softness_deg: float = 7.0
    fading_deg_per_cm: float = 1.5
    patch: tuple[int, int] = (7, 9)
    thickness_mm: tuple[float, float] = (0.5, 2.0)
    points_per_echo: int = 3
    noise_mm: tuple[float, float] = (0.3, 1.0)

    def __post_init__(self) -> None:
        check_settings(self, {"incidence_deg": (1.0, 90.0), "softness_deg": (1e-9, 45.0),
                              "fading_deg_per_cm": (0.0, 20.0), "patch": (1, 200), "thickness_mm": (0.0, 20.0),
                              "points_per_echo": (1, 50), "noise_mm": (0.0, 20.0)})
        check_ranges(self, ("incidence_deg", "thickness_mm", "noise_mm"))


@dataclass(frozen=True)
class FaultSettings:
    """What goes wrong: lost frames start with chance ``lost_frames`` and last ``lost_length`` on average; clutter is
    ``streaks`` per 100 frames (layers in front of bone) and ``stray`` of all points anywhere along the rays."""

    lost_frames: float = 0.008
    lost_length: float = 4.0
    streaks: tuple[float, float] = (2.0, 12.0)
    streak_frames: tuple[int, int] = (2, 8)
    streak_lines: tuple[int, int] = (8, 28)
    stray: tuple[float, float] = (0.0, 0.015)

    def __post_init__(self) -> None:
        check_settings(self, {"lost_frames": (0.0, 1.0), "lost_length": (1.0, 1000.0), "streaks": (0.0, 1000.0),
                              "streak_frames": (1, 1000), "streak_lines": (1, 1000), "stray": (0.0, 1.0)})
        check_ranges(self, ("streaks", "streak_frames", "streak_lines", "stray"))


@dataclass(frozen=True)
class RealisticVisibility:
    """All settings of the realistic ultrasound."""

    sweep: SweepSettings = field(default_factory=SweepSettings)
    echo: EchoSettings = field(default_factory=EchoSettings)
    tracking: TrackingErrors = field(default_factory=TrackingErrors)
    faults: FaultSettings = field(default_factory=FaultSettings)


@dataclass(frozen=True)
class _Echoes:
    """Points in probe coordinates: ``frame`` and ``line`` (N,), ``depth`` (N,) mm from the face, ``owner`` (N,)."""

    frame: NDArray[np.int64]
    line: NDArray[np.int64]
    depth: NDArray[np.float64]
    owner: NDArray[np.uint8]


def sweep_over(meshes: Mapping[str, Mesh], settings: RealisticVisibility, random: np.random.Generator) -> SeenPoints:
    """Bone points that a sweep over the back gives, clutter included; ``meshes``: mm, frame spine (LPS)."""
    frames = lead_probe(meshes, settings.sweep, random)
    angles = np.radians(settings.sweep.fan_deg) * (np.arange(settings.sweep.lines) / (settings.sweep.lines - 1) - 0.5)
    reach = float(random.uniform(*settings.sweep.depth_mm))
    depth, cosine, owner = _first_hits(meshes, frames, angles, reach, settings.sweep.radius_mm)
    told = _told(depth, cosine, settings.echo, random) & ~_lost(len(depth), settings.faults, random)[:, None]
    echoes = _thick(told, depth, owner, settings.echo, random)
    echoes = _joined([echoes, _streaks(depth, reach, settings.faults, random),
                      _stray(len(echoes.frame), depth.shape, reach, settings.faults, random)])
    scaled = echoes.depth * (1.0 + settings.tracking.sound_speed * random.standard_normal())
    local = _probe_coordinates(angles[echoes.line], scaled, settings.sweep.radius_mm)
    told_poses = believed(frames, settings.tracking, settings.sweep.frame_step_mm, random)
    points = told_poses.place(echoes.frame, local)
    points = points + random.uniform(*settings.echo.noise_mm) * random.standard_normal(points.shape)
    return SeenPoints(points, echoes.owner)


def _first_hits(meshes: Mapping[str, Mesh], frames: Frames, angles: NDArray, reach: float, radius: float
                ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint8]]:
    """Depth from the face (inf: nothing), cosine of incidence and level, each (frames, lines)."""
    shape = (len(frames.origins), len(angles))
    frame = np.repeat(np.arange(shape[0]), shape[1])
    line = np.tile(np.arange(shape[1]), shape[0])
    origins = frames.place(frame, _probe_coordinates(angles[line], np.zeros(len(line)), radius))
    along = np.column_stack([np.sin(angles[line]), np.cos(angles[line]), np.zeros(len(line))])
    directions = np.einsum("nij,nj->ni", frames.rotations[frame], along)
    hits = TriangleTree.build([meshes[level] for level in LEVELS]).cast(origins, directions, reach)
    cosine = -np.einsum("ni,ni->n", hits.normal, directions)
    owner = np.where(hits.mesh >= 0, hits.mesh + 20, 0).astype(np.uint8)
    return hits.distance.reshape(shape), cosine.reshape(shape), owner.reshape(shape)


def _probe_coordinates(angle: NDArray, depth: NDArray, radius: float) -> NDArray[np.float64]:
    """(N, 3) lateral, depth, elevation in mm of points ``depth`` below the curved face at ``angle`` of the fan."""
    return np.column_stack([(radius + depth) * np.sin(angle), (radius + depth) * np.cos(angle) - radius,
                            np.zeros(len(depth))])


def _told(depth: NDArray, cosine: NDArray, settings: EchoSettings, random: np.random.Generator) -> NDArray[np.bool_]:
    """(frames, lines) which echoes are found; missed ones come in patches."""
    hit = np.isfinite(depth)
    angle = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
    below = np.maximum(np.where(hit, depth, 0.0) - 30.0, 0.0) / 10.0
    limit = random.uniform(*settings.incidence_deg) - settings.fading_deg_per_cm * below
    chance = 1.0 / (1.0 + np.exp(np.clip((angle - limit) / (0.25 * settings.softness_deg), -40.0, 40.0)))
    patches = uniform_filter(random.standard_normal(depth.shape), settings.patch, mode="wrap")
    mixed = 0.8 * patches * np.sqrt(np.prod(settings.patch)) + 0.6 * random.standard_normal(depth.shape)
    return hit & (ndtr(mixed) < chance)


def _lost(frames: int, settings: FaultSettings, random: np.random.Generator) -> NDArray[np.bool_]:
    """(frames,) which frames gave nothing: contact lost for a while."""
    lost = np.zeros(frames, dtype=bool)
    for start in np.flatnonzero(random.random(frames) < settings.lost_frames):
        lost[start:start + random.geometric(1.0 / settings.lost_length)] = True
    return lost


def _thick(told: NDArray, depth: NDArray, owner: NDArray, settings: EchoSettings, random: np.random.Generator
           ) -> _Echoes:
    """Each found echo as several points across the thickness of its response."""
    frame, line = (np.repeat(index, settings.points_per_echo) for index in np.nonzero(told))
    thickness = random.uniform(*settings.thickness_mm)
    spread = thickness * (random.random(len(frame)) - 0.5)
    return _Echoes(frame, line, depth[frame, line] + spread, owner[frame, line])


def _streaks(depth: NDArray, reach: float, settings: FaultSettings, random: np.random.Generator) -> _Echoes:
    """Layers of soft tissue taken for bone: short pieces at a depth in front of the first bone."""
    frames, lines = depth.shape
    parts = [_Echoes(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.uint8))]
    for _ in range(random.poisson(random.uniform(*settings.streaks) * frames / 100.0)):
        first = random.integers(frames)
        left = random.integers(lines)
        long, wide = (random.integers(*size, endpoint=True) for size in (settings.streak_frames, settings.streak_lines))
        part_frame = np.arange(first, min(first + long, frames))
        part_line = np.arange(left, min(left + wide, lines))
        frame, line = (grid.ravel() for grid in np.meshgrid(part_frame, part_line, indexing="ij"))
        deepest = min(float(depth[frame, line].min()), reach)
        at = deepest * random.uniform(0.3, 0.95) + random.normal(0.0, 0.08) * (line - left)
        inside = (at > 1.0) & (at < depth[frame, line])
        parts.append(_Echoes(frame[inside], line[inside], at[inside], np.zeros(int(inside.sum()), np.uint8)))
    return _joined(parts)


def _stray(count: int, shape: tuple[int, int], reach: float, settings: FaultSettings, random: np.random.Generator
           ) -> _Echoes:
    """Single false points anywhere in the images."""
    count = int(random.uniform(*settings.stray) * count)
    return _Echoes(random.integers(shape[0], size=count), random.integers(shape[1], size=count),
                   random.uniform(1.0, reach, count), np.zeros(count, np.uint8))


def _joined(parts: list[_Echoes]) -> _Echoes:
    return _Echoes(*(np.concatenate([getattr(part, name) for part in parts])
                     for name in ("frame", "line", "depth", "owner")))
