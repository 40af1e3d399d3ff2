"""Clouds of vertebral bodies from one lateral X-ray: flawless as the paper has them, or with a device's errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_completion.data.body_mask import (
    BodyMask,
    SegmentationErrors,
    filling,
    mask_of,
    missegmented,
    outline,
)
from usx_completion.data.observed import SeenPoints, XrayBody
from usx_completion.data.setting_checks import check_ranges, check_settings
from usx_completion.data.spine_sample import SpineSample
from usx_completion.rigid import rotation_matrix


@dataclass(frozen=True)
class PaperXray:
    """Orthographic left-right projection. ``plane``: "ultrasound" puts the cloud at the middle of the visible
    ultrasound, "truth" at each vertebra's own middle (the paper's synthetic data: it tells what is not known)."""

    pixel_mm: float = 0.5
    plane: str = "ultrasound"

    def __post_init__(self) -> None:
        check_settings(self, {"pixel_mm": (0.1, 5.0)})
        if self.plane not in ("ultrasound", "truth"):
            raise UsxError(f"X-ray plane {self.plane!r} is unknown; known are ultrasound, truth")


@dataclass(frozen=True)
class RealisticXray:
    """A cone beam and its errors: SD, or (low, high) of a uniform draw. mm and degrees.

    ``tilt_deg``: largest angle between the beam and left-right, known with chance ``tilt_known``; ``left_right_mm``:
    SD and largest error of the plane's place; ``shift_mm``, ``turn_deg``: in its plane; ``lean_deg``: out of it.
    """

    pixel_mm: float = 0.5
    source_mm: tuple[float, float] = (700.0, 1100.0)
    aim_mm: float = 15.0
    tilt_deg: float = 8.0
    tilt_known: float = 0.5
    left_right_mm: tuple[float, float] = (4.0, 10.0)
    shift_mm: float = 2.0
    turn_deg: float = 1.5
    lean_deg: float = 1.0
    magnification: float = 0.015
    segmentation: SegmentationErrors = field(default_factory=SegmentationErrors)

    def __post_init__(self) -> None:
        check_settings(self, {"pixel_mm": (0.1, 5.0), "source_mm": (300.0, 5000.0), "aim_mm": (0.0, 100.0),
                              "tilt_deg": (0.0, 30.0), "tilt_known": (0.0, 1.0), "left_right_mm": (0.0, 50.0),
                              "shift_mm": (0.0, 50.0), "turn_deg": (0.0, 30.0), "lean_deg": (0.0, 30.0),
                              "magnification": (0.0, 0.3)})
        check_ranges(self, ("source_mm", "left_right_mm"))


@dataclass(frozen=True)
class CloudSizes:
    """Points of a filled body and of its outline."""

    filled: int = 4096
    outline: int = 96


@dataclass(frozen=True)
class _Plane:
    """A plane in space: ``origin`` (3,) and rows ``axes`` (2, 3), the posterior and the cranial direction in it."""

    origin: NDArray[np.float64]
    axes: NDArray[np.float64]

    def lift(self, flat: NDArray) -> NDArray[np.float64]:
        return self.origin + flat[:, :1] * self.axes[0] + flat[:, 1:] * self.axes[1]


def orthographic_clouds(sample: SpineSample, seen: SeenPoints, settings: PaperXray, sizes: CloudSizes,
                        random: np.random.Generator) -> dict[str, XrayBody]:
    """Level -> cloud of its body, projected along x; frame of the sample.

    Raises UsxError for an empty ultrasound or body.
    """
    _check_seen(seen)
    middle = 0.5 * (seen.points[:, 0].min() + seen.points[:, 0].max())
    clouds = {}
    for level in LEVELS:
        mesh = sample.meshes[level]
        mask = mask_of(mesh.vertices[:, 1:], _body_faces(mesh, sample.body[level]), settings.pixel_mm)
        if settings.plane == "truth":
            middle = 0.5 * (mesh.vertices[:, 0].min() + mesh.vertices[:, 0].max())
        plane = _Plane(np.array([middle, 0.0, 0.0]), np.eye(3)[1:])
        clouds[level] = _cloud(mask, plane, sizes, random)
    return clouds


def cone_beam_clouds(sample: SpineSample, seen: SeenPoints, settings: RealisticXray, sizes: CloudSizes,
                     random: np.random.Generator) -> dict[str, XrayBody]:
    """Level -> cloud of its body as segmented in a cone-beam X-ray and placed with errors; frame of the sample.

    Raises UsxError for an empty ultrasound or body.
    """
    _check_seen(seen)
    centre = np.mean([sample.level_to_spine[level][:3, 3] for level in LEVELS], axis=0)
    centre = centre + random.uniform(-settings.aim_mm, settings.aim_mm, 3) * [0.0, 1.0, 1.0]
    true_axes = _tilted(settings.tilt_deg, random)
    source = random.uniform(*settings.source_mm) * (1.0 if random.random() < 0.5 else -1.0)
    placed = _placed(centre, true_axes, seen, settings, random)
    clouds = {}
    for level in LEVELS:
        mesh = sample.meshes[level]
        across, posterior, cranial = true_axes @ (mesh.vertices - centre).T
        flat = np.column_stack([posterior, cranial]) * (source / (source - across))[:, None]
        mask = mask_of(flat, _body_faces(mesh, sample.body[level]), settings.pixel_mm)
        clouds[level] = _cloud(missegmented(mask, settings.segmentation, random), placed, sizes, random)
    return clouds


def _check_seen(seen: SeenPoints) -> None:
    if len(seen.points) == 0:
        raise UsxError("the ultrasound shows no point, so the X-ray cannot be placed amid it")


def _tilted(largest_deg: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Rows (3, 3): direction of the beam, posterior and cranial in the image; evenly within the cone of tilts."""
    angle = np.radians(largest_deg) * np.sqrt(random.random())
    way = 2.0 * np.pi * random.random()
    return rotation_matrix(angle * np.array([0.0, np.cos(way), np.sin(way)])).T


def _placed(centre: NDArray, true_axes: NDArray, seen: SeenPoints, settings: RealisticXray,
            random: np.random.Generator) -> _Plane:
    """The plane where the image is believed to lie. Scaled axes carry the error of the magnification."""
    known = true_axes if random.random() < settings.tilt_known else np.eye(3)
    turn = np.radians(random.standard_normal(3) * [settings.turn_deg, settings.lean_deg, settings.lean_deg])
    axes = known @ rotation_matrix(turn).T
    left, right = np.quantile(seen.points[:, 0], (0.02, 0.98))
    spread, largest = settings.left_right_mm
    across = 0.5 * (left + right) + np.clip(random.normal(0.0, spread), -largest, largest)
    shift = settings.shift_mm * random.standard_normal(2)
    origin = np.array([across, centre[1] + shift[0], centre[2] + shift[1]])
    return _Plane(origin, axes[1:] * (1.0 + settings.magnification * random.standard_normal()))


def _cloud(mask: BodyMask, plane: _Plane, sizes: CloudSizes, random: np.random.Generator) -> XrayBody:
    rim, normals = outline(mask, sizes.outline)
    return XrayBody(plane.lift(filling(mask, sizes.filled, random)), plane.lift(rim), normals)


def _body_faces(mesh: Mesh, body: NDArray[np.bool_]) -> NDArray[np.int32]:
    return mesh.faces[body[mesh.faces].all(axis=1)]


def bodies_by_level(clouds: Mapping[str, XrayBody]) -> NDArray[np.float64]:
    """(5, 3) middle of each body's outline: centre of the box around it, mm."""
    return np.stack([0.5 * (clouds[level].outline.min(axis=0) + clouds[level].outline.max(axis=0))
                     for level in LEVELS])
