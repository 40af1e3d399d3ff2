"""The frame ``spine``: LPS directions of the patient, origin at the middle of the visible spine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usx_common import transforms
from usx_common.errors import UsxError
from usx_registration.surfaces import unit

Array = NDArray[np.float64]

AXES_MIN_ANGLE_DEG = 60.0


class NoPatientAxes(UsxError):
    """Nothing tells which way the patient lies."""


@dataclass(frozen=True)
class PatientAxes:
    """Unit directions (3,) of the patient in some frame, at right angles: ``left``, ``posterior``, ``cranial``."""

    left: Array
    posterior: Array
    cranial: Array

    @property
    def lps_to_frame(self) -> Array:
        """(3, 3) rotation whose columns are left, posterior and cranial."""
        return np.stack([self.left, self.posterior, self.cranial], axis=1)

    def rotated(self, a_to_b: Array) -> PatientAxes:
        """The same directions in another frame."""
        return patient_axes(a_to_b[:3, :3] @ self.cranial, a_to_b[:3, :3] @ self.posterior)


def patient_axes(cranial: Array, posterior: Array) -> PatientAxes:
    """Axes of two measured directions; cranial is kept, posterior is made perpendicular to it.

    Raises UsxError when either has no direction or when they are less than 60 degrees apart (or more than 120).
    """
    up, back = unit(cranial, "patient_cranial_axis"), unit(posterior, "patient_posterior_axis")
    angle = float(np.degrees(np.arccos(np.clip(up @ back, -1.0, 1.0))))
    if not AXES_MIN_ANGLE_DEG <= angle <= 180.0 - AXES_MIN_ANGLE_DEG:
        raise UsxError(f"patient_cranial_axis and patient_posterior_axis are {angle:.0f} degrees apart; they must be "
                       f"about 90 ({AXES_MIN_ANGLE_DEG:.0f} to {180 - AXES_MIN_ANGLE_DEG:.0f})")
    left = unit(np.cross(back, up))
    return PatientAxes(left, np.cross(up, left), up)


def axes_in_volume(configured: PatientAxes | None, world_to_volume: Array | None,
                   cbct_to_volume: Array | None) -> tuple[PatientAxes, float]:
    """Patient axes in us_volume, and the angle in degrees between the two sources where both are known (else 0).

    Those of the CBCT come first, whose frame is LPS: the configured ones say how the patient was meant to lie.
    Never guessed from the shape of the cloud: a mirrored or upside-down answer would look right. Raises NoPatientAxes
    when there is neither.
    """
    meant = None
    if configured is not None and world_to_volume is not None:
        meant = configured.rotated(world_to_volume)
    if cbct_to_volume is not None:
        rotation = cbct_to_volume[:3, :3]
        axes = patient_axes(rotation @ [0.0, 0.0, 1.0], rotation @ [0.0, 1.0, 0.0])
        return axes, 0.0 if meant is None else angle_between(axes, meant)
    if meant is not None:
        return meant, 0.0
    if configured is not None:
        raise NoPatientAxes("the transform from world to us_volume is not known yet, so the patient axes cannot "
                            "be used")
    raise NoPatientAxes("patient_cranial_axis and patient_posterior_axis are not set and no CBCT is registered: the "
                        "spine frame has no directions; set both parameters (unit vectors in world)")


def angle_between(first: PatientAxes, second: PatientAxes) -> float:
    """Angle in degrees of the rotation from one set of axes to the other."""
    turn = first.lps_to_frame.T @ second.lps_to_frame
    return float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1.0) / 2.0, -1.0, 1.0))))


def spine_to_volume(points: Array, axes: PatientAxes) -> Array:
    """(4, 4) pose of the spine frame in the frame of ``points`` (N, 3), mm.

    The origin is the middle of the box that holds the points in patient axes, 1 % of them cut off at either end of
    each axis, so that a stray echo does not move it.
    """
    rotation = axes.lps_to_frame
    low, high = np.percentile(points @ rotation, [1.0, 99.0], axis=0)
    return transforms.make_transform(rotation, rotation @ ((low + high) / 2.0))
