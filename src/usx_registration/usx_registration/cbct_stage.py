"""The CBCT's place in the ultrasound's space: chain of known transforms, image-based registration, and its gate."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from usx_common import transforms
from usx_registration.gate import FitLimits, Verdict, check_fit, extent_along
from usx_registration.rigid import RigidResult, RigidSettings, register, update
from usx_registration.scale import axis_scales
from usx_registration.spine_frame import PatientAxes
from usx_registration.surfaces import Surface, posterior_surface

Array = NDArray[np.float64]

CRANIAL = np.array([0.0, 0.0, 1.0])  # the frame cbct is DICOM LPS
POSTERIOR = np.array([0.0, 1.0, 0.0])
MARGIN_MM = 60.0


@dataclass(frozen=True)
class CbctSettings:
    """``cbct_to_world``, ``xray_to_cbct``: (4, 4) mm of the device, or None; ``voxel``: mm between the CBCT's points;
    ``growth``: factor by which the swept length must grow before all starts are tried again."""

    cbct_to_world: Array | None = None
    xray_to_cbct: Array | None = None
    voxel: float = 1.0
    growth: float = 1.3
    rigid: RigidSettings = field(default_factory=RigidSettings)
    limits: FitLimits = field(default_factory=FitLimits)


@dataclass(frozen=True)
class CbctState:
    """``cbct_to_volume`` (4, 4) mm, or None without CBCT; ``verdict`` of the gate; ``notes`` worth a warning;
    ``by_images``: whether the pose was found from the images, not taken from the device chain."""

    cbct_to_volume: Array | None
    verdict: Verdict
    notes: tuple[str, ...] = ()
    by_images: bool = False


class CbctStage:
    """Keeps the CBCT's surface and its pose between the updates of a sweep."""

    def __init__(self, settings: CbctSettings) -> None:
        self._settings = settings
        self._cloud: Array | None = None
        self._surface: Surface | None = None
        self._cbct_to_volume: Array | None = None
        self._extent = 0.0

    def forget(self) -> None:
        """A new sweep: the next registration starts from the device chain again."""
        self._cbct_to_volume = None
        self._extent = 0.0

    def update(self, bone: Array, cbct: Array | None, world_to_volume: Array | None,
               axes: PatientAxes | None) -> CbctState:
        """Register the ultrasound bone (N, 3), frame us_volume, to the CBCT's bone (M, 3), frame cbct, mm.

        Without a CBCT the device chain alone gives the pose, with a note; without either there is no pose, which is
        no failure. Raises BadSurface when the CBCT's bone cannot be used.
        """
        chain = self._chain(world_to_volume)
        if cbct is None:
            if chain is None:
                return CbctState(None, Verdict(True))
            return CbctState(chain, Verdict(True), ("no CBCT: its place is the device chain's, not checked by images",))
        if cbct is not self._cloud:
            self._cloud, self._surface = cbct, posterior_surface(cbct, POSTERIOR, CRANIAL, self._settings.voxel)
            self.forget()
        assert self._surface is not None
        notes: tuple[str, ...] = ()
        guess = self._cbct_to_volume if self._cbct_to_volume is not None else chain
        if guess is None:
            guess = _guess_from_axes(bone, self._surface, axes, world_to_volume)
            notes = ("cbct_to_world is not set: the CBCT was searched for from the patient axes alone",)
        if guess is None:
            return CbctState(None, Verdict(False, "no_initial_guess", "a CBCT came, but neither cbct_to_world nor the "
                             "patient axes are set (or world to us_volume is not known): set one of them"))
        return self._register(bone, guess, notes)

    def _chain(self, world_to_volume: Array | None) -> Array | None:
        if self._settings.cbct_to_world is None or world_to_volume is None:
            return None
        return transforms.nearest_rigid(world_to_volume @ self._settings.cbct_to_world)

    def _register(self, bone: Array, guess: Array, notes: tuple[str, ...]) -> CbctState:
        assert self._surface is not None
        to_cbct = transforms.invert(guess)
        extent = extent_along(transforms.apply(to_cbct, bone), CRANIAL)
        settings = self._settings
        follow_up = self._cbct_to_volume is not None and extent < settings.growth * self._extent
        if follow_up:
            result, verdict = self._judged(update(bone, self._surface, to_cbct, CRANIAL, settings.rigid), bone)
            follow_up = verdict.passed
        if not follow_up:
            surface = _near(self._surface, transforms.apply(to_cbct, bone))
            result, verdict = self._judged(register(bone, surface, to_cbct, CRANIAL, settings.rigid), bone)
        if not verdict.passed:
            self.forget()
            return CbctState(None, verdict, notes)
        if not follow_up:
            self._extent = extent
        self._cbct_to_volume = transforms.invert(result.source_to_target)
        return CbctState(self._cbct_to_volume, verdict, notes, by_images=True)

    def _judged(self, result: RigidResult, bone: Array) -> tuple[RigidResult, Verdict]:
        assert self._surface is not None
        scales, spreads = axis_scales(bone, self._surface, result.source_to_target)
        return result, check_fit(result, scales, spreads, self._settings.limits)


def _near(surface: Surface, points: Array) -> Surface:
    """The part of the surface that the points (N, 3), mm, can reach: a CBCT may show far more than was swept."""
    from scipy.spatial import cKDTree

    low, high = points.min(axis=0) - MARGIN_MM, points.max(axis=0) + MARGIN_MM
    keep = np.all((surface.points >= low) & (surface.points <= high), axis=1)
    if keep.all() or keep.sum() < 100:
        return surface
    return Surface(surface.points[keep], surface.normals[keep], cKDTree(surface.points[keep]))


def _guess_from_axes(bone: Array, surface: Surface, axes: PatientAxes | None,
                     world_to_volume: Array | None) -> Array | None:
    """``cbct_to_volume`` that turns LPS to the patient axes and lays the middles of both surfaces together."""
    if axes is None or world_to_volume is None:
        return None
    rotation = axes.rotated(world_to_volume).lps_to_frame
    ours, theirs = np.percentile(bone @ rotation, [2, 98], axis=0), np.percentile(surface.points, [2, 98], axis=0)
    return transforms.make_transform(rotation, rotation @ (ours.mean(axis=0) - theirs.mean(axis=0)))
