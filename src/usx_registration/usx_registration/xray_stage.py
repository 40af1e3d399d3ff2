"""Where the X-ray lies in the spine frame: by the device's transform, or by the paper's rule, and the gate for it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_registration.xray_placement import Placement, place_xray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class XrayLimits:
    """Least share of the ultrasound points within 5 mm of the surface expected behind the bodies; least cost ratio of
    the next best place; largest in-plane rotation of the refinement in degrees; disagreement in mm from which a
    placed X-ray is warned about."""

    overlap: float = 0.5
    runner_up: float = 1.1
    rotation_deg: float = 25.0
    disagreement: float = 12.0


@dataclass(frozen=True)
class XrayPose:
    """``xray_to_spine`` (4, 4) mm, or None when the X-ray cannot be used; ``notes`` say why, or what to doubt."""

    xray_to_spine: Array | None
    by_device: bool = False
    numbers: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def place(how: tuple[str, str], xray_to_cbct: Array | None, cbct_to_spine: Array | None, bone: Array,
          xray: tuple[Array, NDArray], limits: XrayLimits) -> XrayPose:
    """Place the X-ray. ``how``: placement (auto, device, paper) and beam (auto, left, right); ``bone``: (N, 3) mm,
    frame spine; ``xray``: the bodies' points (M, 3), frame xray, and their labels (M,)."""
    placement, beam = how
    if placement != "paper" and xray_to_cbct is not None and cbct_to_spine is not None:
        return XrayPose(cbct_to_spine @ xray_to_cbct, by_device=True)
    if placement == "device":
        missing = "xray_to_cbct is not set" if xray_to_cbct is None else "the CBCT is not registered"
        return XrayPose(None, notes=(f"X-ray left out: it is to be placed by the device, but {missing}",))
    notes: tuple[str, ...] = ()
    if placement == "auto" and xray_to_cbct is not None:
        notes = ("the CBCT is not registered, so the X-ray is placed by the ultrasound's bounding box",)
    try:
        return _judge(place_xray(bone, xray[0], xray[1], beam), limits, notes)
    except UsxError as error:
        return XrayPose(None, notes=(*notes, f"X-ray left out: {error}"))


def _judge(placement: Placement, limits: XrayLimits, notes: tuple[str, ...]) -> XrayPose:
    fit = placement.fit
    turn = placement.fit.source_to_target[:3, :3]
    rotation = float(np.degrees(np.arctan2(turn[2, 1], turn[1, 1])))
    numbers = {"xray_overlap": fit.overlap, "xray_median_mm": fit.median, "xray_runner_up": fit.runner_up,
               "xray_shift_mm": fit.shift, "xray_rotation_deg": rotation}
    problem = ""
    if fit.overlap < limits.overlap:
        problem = (f"{fit.overlap:.0%} of the ultrasound points lie where its bodies let bone expect, "
                   f"{limits.overlap:.0%} are needed")
    elif fit.runner_up < limits.runner_up:
        problem = (f"a place a level away fits almost as well (cost ratio {fit.runner_up:.2f}, "
                   f"{limits.runner_up:.2f} is needed); sweep more of the spine")
    elif abs(rotation) > limits.rotation_deg:
        problem = (f"it would have to be turned by {rotation:.0f} degrees in its plane, at most "
                   f"{limits.rotation_deg:.0f} are allowed")
    if problem:
        return XrayPose(None, numbers=numbers, notes=(*notes, f"X-ray left out: {problem}"))
    return XrayPose(placement.xray_to_spine, numbers=numbers, notes=notes)
