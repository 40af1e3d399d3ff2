"""Parameters of compounding_node, their checks, and the settings made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from usx_common.errors import UsxError
from usx_common.parameters import Parameter
from usx_common.transforms import Matrix, is_rigid, parse_matrix
from usx_compounding.bone_response import BoneSettings
from usx_compounding.cells import COMBINATIONS, DISTRIBUTIONS, CellKind
from usx_compounding.compounding import CompoundingSettings
from usx_compounding.hole_filling import METHODS
from usx_compounding.live_settings import LiveSettings
from usx_compounding.mask import Fan, MaskSettings
from usx_compounding.pose_buffer import PoseGates
from usx_compounding.region import Lattice
from usx_compounding.saving import FORMATS, SAFE_NAME
from usx_compounding.sweep import SweepSettings

IDENTITY = np.eye(4).reshape(-1).tolist()


def _matrix(numbers: list[float]) -> str:
    try:
        parse_matrix(numbers)
    except UsxError as error:
        return f"a 4x4 matrix, row-major ({error})" if numbers else ""
    return ""


def _rigid(numbers: list[float]) -> str:
    return _matrix(numbers) or ("" if is_rigid(np.reshape(numbers, (4, 4)), 1e-6) else "rotation and translation only")


def _file_name(name: str) -> str:
    return "" if not name or SAFE_NAME.fullmatch(name) else "letters, digits, '.', '_' and '-', without folders"


TABLE = (
    Parameter("image_to_probe", [], "spatial calibration, 16 numbers row-major: pixel (column, row, 0, 1) to mm in the "
              "probe's frame; used exactly as given; empty = every frame is rejected", read_only=True, check=_matrix),
    Parameter("pose_source", "tf", "where the pose of the probe comes from: transforms, or us/pose",
              choices=("tf", "topic"), read_only=True),
    Parameter("world_frame", "world", "fixed frame of the tracker or robot", read_only=True),
    Parameter("probe_frame", "us_probe", "frame of the tracked probe", read_only=True),
    Parameter("image_frame", "us_image", "frame published at pixel (0, 0), nearest rigid, for display", read_only=True),
    Parameter("volume_frame", "us_volume", "frame of the volume and of us/bone", read_only=True),
    Parameter("volume_to_world", IDENTITY, "where the volume's frame lies in world, 16 numbers row-major, mm; the "
              "centres of voxels lie at whole multiples of the spacing from its origin", length=16, read_only=True,
              check=_rigid),
    Parameter("pose_max_gap", 0.05, "largest distance of two poses to interpolate between, s", 1e-4, 10.0,
              read_only=True),
    Parameter("pose_staleness", 10.0, "how long, in data time, a frame waits for a later pose, s", 1e-3, 60.0,
              read_only=True),
    Parameter("pose_max_speed", 500.0, "fastest believable probe, mm/s; 0 = any", 0.0, 1e6, read_only=True),
    Parameter("pose_max_turn_rate", 360.0, "fastest believable turn of the probe, degrees/s; 0 = any", 0.0, 1e6,
              read_only=True),
    Parameter("pose_delay", 0.0, "added to a frame's stamp before its pose is looked up, s (temporal calibration)",
              -5.0, 5.0, read_only=True),
    Parameter("jump_back", 0.5, "data older than the newest by more is a clock set back: a new sweep begins, s", 0.01,
              60.0, read_only=True),
    Parameter("spacing", 0.5, "edge of a voxel, mm", 0.01, 20.0, read_only=True),
    Parameter("distribution", "nearest", "nearest: a pixel goes to one voxel; linear: to the eight around it",
              choices=DISTRIBUTIONS, read_only=True),
    Parameter("combination", "mean", "what pixels in one voxel become", choices=COMBINATIONS, read_only=True),
    Parameter("rejection_threshold", 0, "darker pixels are left out, grey level", 0, 255, read_only=True),
    Parameter("mask_kind", "none", "pixels that count; a fan also says that the beams are rays",
              choices=("none", "rectangle", "fan"), read_only=True),
    Parameter("mask_rectangle", [], "first column, first row, last column, last row, pixels", length=4, element=int,
              read_only=True),
    Parameter("mask_fan", [], "apex column, apex row, smallest and largest radius (pixels), smallest and largest angle "
              "(degrees from the +row axis, positive towards +column)", length=6, read_only=True),
    Parameter("bone_thickness", 1.5, "thickness of the bone's echo, mm", 0.1, 20.0, read_only=True),
    Parameter("bone_shadow", 20.0, "length of the shadow that is looked at below an echo, mm", 1.0, 200.0,
              read_only=True),
    Parameter("bone_shadow_ratio", 0.35, "a shadow this bright, relative to the echo, is none", 0.01, 1.0,
              read_only=True),
    Parameter("bone_threshold", 60.0, "least mean bone response of a surface point", 1.0, 255.0, read_only=True),
    Parameter("engine", "numba", "numba: CPU; torch: the device below. Results are equal bit for bit",
              choices=("numba", "torch"), read_only=True),
    Parameter("device", "cuda", "torch device", read_only=True),
    Parameter("threads", 2, "CPU threads of the numba engine", 1, 64, read_only=True),
    Parameter("memory_limit_mib", 2048, "bound on the memory of the volume, MiB", 1, 1_048_576, read_only=True),
    Parameter("idle_timeout", 3.0, "a sweep ends when no frame was used for this long, s on the steady clock", 0.1,
              3600.0, read_only=True),
    Parameter("update_period", 0.5, "between updates of us/bone and us/coverage, s", 0.05, 1.0, read_only=True),
    Parameter("slice_period", 0.1, "between two messages on us/slice, s", 0.0, 10.0, read_only=True),
    Parameter("queue_size", 256, "frames that may wait for their pose, and for the worker", 1, 10_000, read_only=True),
    Parameter("save_folder", "", "the only folder that ~/save writes to"),
    Parameter("save_name", "", "file name of ~/save without ending; empty = sweep_<number>_<stamp>", check=_file_name),
    Parameter("save_format", "nrrd", "kind of file that ~/save writes", choices=FORMATS),
    Parameter("hole_filling", "none", "how ~/save fills voxels that no frame hit", choices=METHODS),
    Parameter("hole_reach", 9, "over how many voxels ~/save fills holes", 1, 100),
)


def live_settings(values: Mapping[str, Any]) -> LiveSettings:
    """Settings of a checked set of values. Raises UsxError where values contradict each other."""
    gates = PoseGates(values["pose_max_gap"], values["pose_max_speed"], values["pose_max_turn_rate"],
                      values["pose_staleness"], values["jump_back"])
    return LiveSettings(_sweep_settings(values), gates, values["pose_delay"], values["idle_timeout"],
                        values["update_period"], values["slice_period"], values["queue_size"])


def image_to_probe(values: Mapping[str, Any]) -> Matrix | None:
    """The calibration, or None when none is given."""
    return parse_matrix(values["image_to_probe"], "image_to_probe") if values["image_to_probe"] else None


def mask_settings(values: Mapping[str, Any]) -> MaskSettings:
    """The mask. Raises UsxError naming the parameter that is missing or contradicts itself."""
    kind, rectangle, fan = values["mask_kind"], values["mask_rectangle"], values["mask_fan"]
    if kind == "rectangle":
        if not rectangle:
            raise UsxError("mask_kind is rectangle, but mask_rectangle is empty: it must be four numbers")
        return MaskSettings("rectangle", rectangle=tuple(rectangle))
    if kind == "fan":
        if not fan:
            raise UsxError("mask_kind is fan, but mask_fan is empty: it must be six numbers")
        return MaskSettings("fan", fan=Fan(*fan))
    return MaskSettings()


def _sweep_settings(values: Mapping[str, Any]) -> SweepSettings | None:
    calibration = image_to_probe(values)
    mask = mask_settings(values)
    lattice = Lattice(parse_matrix(values["volume_to_world"], "volume_to_world"), values["spacing"])
    compounding = CompoundingSettings(CellKind(values["distribution"], values["combination"]),
                                      values["rejection_threshold"], values["memory_limit_mib"] * 2**20)
    bone = BoneSettings(thickness=values["bone_thickness"], shadow=values["bone_shadow"],
                        shadow_ratio=values["bone_shadow_ratio"])
    if calibration is None:
        return None
    return SweepSettings(calibration, lattice, compounding, mask, bone, values["bone_threshold"])
