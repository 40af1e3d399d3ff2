"""How a curvilinear probe is led along the back, and how wrong its tracked poses are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_completion.data.setting_checks import check_ranges, check_settings


@dataclass(frozen=True)
class SweepSettings:
    """Probe and path. Pairs are (low, high) of a uniform draw per sweep; the rest are SD or fixed. mm and degrees.

    ``skin_mm``: skin above the tips of the spinous processes; ``wander_mm``: probe off the midline, smooth;
    ``paramedian``: chance of two passes, one each side, that look inwards, in place of one along the midline.
    """

    radius_mm: float = 60.0
    fan_deg: float = 60.0
    lines: int = 112
    frame_step_mm: float = 0.8
    depth_mm: tuple[float, float] = (80.0, 120.0)
    skin_mm: tuple[float, float] = (6.0, 28.0)
    short_ends_mm: tuple[float, float] = (0.0, 12.0)
    wander_mm: float = 3.0
    turn_deg: float = 2.5
    paramedian: float = 0.3
    paramedian_mm: float = 16.0
    paramedian_deg: float = 10.0

    def __post_init__(self) -> None:
        check_settings(self, {"radius_mm": (5.0, 500.0), "fan_deg": (5.0, 120.0), "lines": (2, 4096),
                              "frame_step_mm": (0.05, 20.0), "depth_mm": (10.0, 300.0), "skin_mm": (0.5, 150.0),
                              "short_ends_mm": (0.0, 60.0), "wander_mm": (0.0, 30.0), "turn_deg": (0.0, 30.0),
                              "paramedian": (0.0, 1.0), "paramedian_mm": (0.0, 60.0), "paramedian_deg": (-45.0, 45.0)})
        check_ranges(self, ("depth_mm", "skin_mm", "short_ends_mm"))


@dataclass(frozen=True)
class TrackingErrors:
    """Errors of tracked poses (SD): ``drift_*`` smooth over ``drift_length_mm`` of the way; ``calibration_*`` the same
    for a whole sweep; ``sound_speed`` relative; ``breathing_mm``: (low, high) amplitude along y."""

    drift_mm: float = 0.5
    drift_deg: float = 0.4
    drift_length_mm: float = 50.0
    calibration_mm: float = 0.7
    calibration_deg: float = 0.7
    sound_speed: float = 0.01
    breathing_mm: tuple[float, float] = (0.0, 1.0)
    breathing_length_mm: tuple[float, float] = (30.0, 80.0)

    def __post_init__(self) -> None:
        check_settings(self, {"drift_mm": (0.0, 20.0), "drift_deg": (0.0, 20.0), "drift_length_mm": (1.0, 1000.0),
                              "calibration_mm": (0.0, 20.0), "calibration_deg": (0.0, 20.0),
                              "sound_speed": (0.0, 0.2), "breathing_mm": (0.0, 20.0),
                              "breathing_length_mm": (1.0, 1000.0)})
        check_ranges(self, ("breathing_mm", "breathing_length_mm"))


@dataclass(frozen=True)
class Frames:
    """Poses of a sweep's F frames: ``rotations`` (F, 3, 3) with columns lateral, depth, elevation; ``origins`` (F, 3):
    the middle of the probe's face, mm, frame spine."""

    rotations: NDArray[np.float64]
    origins: NDArray[np.float64]

    def place(self, frame: NDArray, local: NDArray) -> NDArray[np.float64]:
        """(N, 3) points of probe coordinates ``local`` (N, 3) of the frames ``frame`` (N,), mm, frame spine."""
        return np.einsum("nij,nj->ni", self.rotations[frame], local) + self.origins[frame]


def lead_probe(meshes: Mapping[str, Mesh], settings: SweepSettings, random: np.random.Generator) -> Frames:
    """True poses of the frames, the caudal end first; one pass along the midline or two beside it."""
    middle, skin = _back(meshes, random.uniform(*settings.skin_mm))
    low = meshes[LEVELS[-1]].vertices[:, 2].min() + random.uniform(*settings.short_ends_mm)
    high = meshes[LEVELS[0]].vertices[:, 2].max() - random.uniform(*settings.short_ends_mm)
    passes = [(0.0, 0.0)]
    step = settings.frame_step_mm
    if random.random() < settings.paramedian:
        passes = [(side * settings.paramedian_mm, side * settings.paramedian_deg) for side in (1.0, -1.0)]
        step *= 1.6
    parts = []
    for offset, roll in passes:
        z = np.arange(low, high, step)
        x = np.polyval(middle, z) + offset + settings.wander_mm * smooth_noise(random, len(z), 60.0 / step)
        pitch = np.degrees(np.arctan(np.polyval(np.polyder(skin), z)))
        wobble = settings.turn_deg * np.column_stack([smooth_noise(random, len(z), 60.0 / step) for _ in range(3)])
        parts.append(Frames(_axes(pitch + wobble[:, 0], wobble[:, 1], roll + wobble[:, 2]),
                            np.column_stack([x, np.polyval(skin, z), z])))
    return Frames(np.concatenate([part.rotations for part in parts]), np.concatenate([part.origins for part in parts]))


def believed(frames: Frames, errors: TrackingErrors, step_mm: float, random: np.random.Generator) -> Frames:
    """The poses as tracking and calibration tell them: drift, one calibration error, and breathing."""
    count = len(frames.origins)
    length = errors.drift_length_mm / step_mm
    drift = np.column_stack([smooth_noise(random, count, length) for _ in range(6)])
    turn = Rotation.from_rotvec(np.radians(errors.drift_deg) * drift[:, :3]
                                + np.radians(errors.calibration_deg) * random.standard_normal(3)).as_matrix()
    shift = errors.drift_mm * drift[:, 3:] + errors.calibration_mm * random.standard_normal(3)
    waves = frames.origins[:, 2] / random.uniform(*errors.breathing_length_mm) + random.random()
    breath = random.uniform(*errors.breathing_mm) * np.sin(2.0 * np.pi * waves)
    origins = frames.origins + np.einsum("fij,fj->fi", frames.rotations, shift)
    origins[:, 1] += breath
    return Frames(frames.rotations @ turn, origins)


def smooth_noise(random: np.random.Generator, count: int, length: float) -> NDArray[np.float64]:
    """(count,) Gaussian noise of mean 0 and SD 1, correlated over ``length`` samples."""
    sigma = max(length / 2.0, 0.5)
    reach = int(4.0 * sigma) + 1
    noise = gaussian_filter1d(random.standard_normal(count + 2 * reach), sigma, truncate=4.0)[reach:reach + count]
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return noise * weights.sum() / np.linalg.norm(weights)


def _back(meshes: Mapping[str, Mesh], skin_mm: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Polynomials in z of the midline's x and of the skin's y, which lies ``skin_mm`` or more behind every bone."""
    tips = np.stack([mesh.vertices[np.argmax(mesh.vertices[:, 1])] for mesh in meshes.values()])
    centres = np.stack([mesh.vertices.mean(axis=0) for mesh in meshes.values()])
    middle = np.polyfit(centres[:, 2], centres[:, 0], 2)
    skin = np.polyfit(tips[:, 2], tips[:, 1], 2)
    behind = max(float((mesh.vertices[:, 1] - np.polyval(skin, mesh.vertices[:, 2])).max())
                 for mesh in meshes.values())
    skin[-1] += behind + skin_mm
    return middle, skin


def _axes(pitch: NDArray, yaw: NDArray, roll: NDArray) -> NDArray[np.float64]:
    """(F, 3, 3) axes of the probe as columns: lateral (about +x), depth (about -y), elevation; angles in degrees.

    ``pitch`` turns depth along the spine, ``roll`` to the side, ``yaw`` about the depth axis.
    """
    rest = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])
    turn = Rotation.from_euler("XZY", np.column_stack([pitch, -roll, yaw]), degrees=True).as_matrix()
    return turn @ rest
