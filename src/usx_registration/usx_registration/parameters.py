"""Parameters of registration_node, and the settings they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from usx_common import transforms
from usx_common.errors import UsxError
from usx_common.parameters import Parameter
from usx_registration.cbct_stage import CbctSettings
from usx_registration.gate import CoverageLimits, FitLimits
from usx_registration.session import SessionSettings
from usx_registration.spine_frame import PatientAxes, patient_axes
from usx_registration.surfaces import unit
from usx_registration.xray_stage import XrayLimits


def _rigid(name: str) -> Callable[[Sequence[float]], str]:
    def check(numbers: Sequence[float]) -> str:
        if not numbers:
            return ""
        try:
            matrix = transforms.parse_matrix(numbers, name)
        except UsxError as error:
            return f"a 4x4 matrix in row-major order ({error})"
        return "" if transforms.is_rigid(matrix, 1e-3) else "a rotation and a translation in mm, without scale or shear"

    return check


def _direction(numbers: Sequence[float]) -> str:
    try:
        if numbers:
            unit(numbers)
    except UsxError as error:
        return f"a direction ({error})"
    return ""


def _number(name: str, default: float, description: str, low: float, high: float) -> Parameter:
    return Parameter(name, default, description, minimum=low, maximum=high, read_only=True)


TABLE = (
    Parameter("xray_placement", "auto", "how the X-ray is placed: device (xray_to_cbct and the CBCT), paper (bounding "
              "box of the ultrasound's bone, refined), auto (device where it is known, else paper)",
              choices=("auto", "device", "paper"), read_only=True),
    Parameter("xray_beam", "auto", "patient side towards which the beam runs, for xray_placement paper; auto tries "
              "both and takes the one that agrees with the ultrasound", choices=("auto", "left", "right"),
              read_only=True),
    Parameter("cbct_to_world", [], "device chain: CBCT (DICOM patient coordinates) to world, 16 numbers row-major, mm; "
              "the initial guess of the registration; empty: not known", length=16, check=_rigid("cbct_to_world"),
              read_only=True),
    Parameter("xray_to_cbct", [], "device transform: X-ray optical frame to CBCT, 16 numbers row-major, mm; empty: "
              "not known", length=16, check=_rigid("xray_to_cbct"), read_only=True),
    Parameter("patient_cranial_axis", [], "direction towards the patient's head in the world frame, 3 numbers; "
              "empty: not known", length=3, check=_direction, read_only=True),
    Parameter("patient_posterior_axis", [], "direction towards the patient's back in the world frame, 3 numbers; "
              "empty: not known", length=3, check=_direction, read_only=True),
    Parameter("world_frame", "world", "TF frame in which the patient axes and cbct_to_world are given", read_only=True),
    Parameter("volume_frame", "us_volume", "TF frame of us/bone", read_only=True),
    Parameter("min_points", 300, "gate: least number of ultrasound bone points", minimum=50, maximum=1_000_000,
              read_only=True),
    _number("min_extent", 60.0, "gate: least length of spine swept, mm", 10.0, 1000.0),
    _number("max_residual_median", 1.5, "gate: largest median distance of matched points to the CBCT, mm", 0.1, 20.0),
    _number("max_residual_p95", 3.0, "gate: largest 95th percentile of those distances, mm", 0.1, 50.0),
    _number("min_overlap", 0.4, "gate: least share of ultrasound points on the CBCT's bone", 0.0, 1.0),
    _number("max_scale_error", 0.06, "gate: largest deviation of the scale from 1 along an axis", 0.005, 1.0),
    _number("min_level_contrast", 1.08, "gate: least cost of the next best pose a level away, relative to the best",
            1.0, 10.0),
    _number("max_shift", 45.0, "gate: largest distance along the spine from the device chain's guess, mm", 1.0, 500.0),
    _number("xray_min_overlap", 0.5, "gate of xray_placement paper: least share of ultrasound points where the "
            "X-ray's bodies let bone expect", 0.0, 1.0),
)


def make_settings(values: Mapping[str, Any]) -> SessionSettings:
    """Settings of checked parameter values. Raises UsxError when the patient axes do not fit each other."""
    fit = FitLimits(median=values["max_residual_median"], p95=values["max_residual_p95"],
                    overlap=values["min_overlap"], scale=values["max_scale_error"],
                    runner_up=values["min_level_contrast"], shift=values["max_shift"])
    cbct = CbctSettings(_matrix(values, "cbct_to_world"), _matrix(values, "xray_to_cbct"), limits=fit)
    return SessionSettings(axes=_axes(values), cbct=cbct, placement=values["xray_placement"],
                           beam=values["xray_beam"],
                           coverage=CoverageLimits(values["min_points"], values["min_extent"]),
                           xray=XrayLimits(overlap=values["xray_min_overlap"]))


def _matrix(values: Mapping[str, Any], name: str) -> np.ndarray | None:
    return transforms.nearest_rigid(transforms.parse_matrix(values[name], name)) if len(values[name]) else None


def _axes(values: Mapping[str, Any]) -> PatientAxes | None:
    cranial, posterior = values["patient_cranial_axis"], values["patient_posterior_axis"]
    if bool(len(cranial)) != bool(len(posterior)):
        raise UsxError("patient_cranial_axis and patient_posterior_axis belong together: set both or neither")
    return patient_axes(np.asarray(cranial), np.asarray(posterior)) if len(cranial) else None
