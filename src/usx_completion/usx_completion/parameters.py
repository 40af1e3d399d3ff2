"""Parameters of completion_node, and how they become the settings of the fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from usx_common.parameters import Parameter
from usx_completion.completion import CompletionSettings
from usx_completion.level_shape import FlexibilitySettings
from usx_completion.observation import ObservationSettings
from usx_completion.shape_model import PACKAGED, PACKAGED_REAL

WEIGHTS = PACKAGED_REAL.with_name("usx.safetensors")
TABLE = (
    Parameter("method", "usx", "how vertebrae are completed: the project's network, or the shape model's fit",
              choices=("usx", "shape_model"), read_only=True),
    Parameter("model_folder", "", f"folder that holds {PACKAGED.name} or {WEIGHTS.name}; empty: the packaged ones",
              read_only=True),
    Parameter("device", "auto", "where the network runs; auto: on a GPU where there is one",
              choices=("auto", "cpu", "cuda"), read_only=True),
    Parameter("spine_frame", "spine", "frame of the clouds taken and given (LPS directions)", read_only=True),
    Parameter("voxel_size", 2.0, "mm; ultrasound is thinned to one point per cube of this size", 1.0, 6.0,
              read_only=True),
    Parameter("smallest_level", 60, "thinned ultrasound points that a level must have to be completed", 10, 5000,
              read_only=True),
    Parameter("ultrasound_sd", 0.9, "mm; standard deviation of the ultrasound's bone points", 0.2, 5.0, read_only=True),
    Parameter("xray_sd", 1.0, "mm; standard deviation of the outline of a body in the X-ray", 0.2, 5.0, read_only=True),
    Parameter("xray_shift_sd", 0.7, "mm; standard deviation of the X-ray's common displacement in its plane", 0.0, 20.0,
              read_only=True),
    Parameter("save_folder", "", "folder that ~/save may write L1.ply .. L5.ply to; empty: saving is refused"),
)


def model_path(values: Mapping[str, Any]) -> Path:
    """The model file that the parameters name."""
    folder = values["model_folder"]
    return Path(folder) / PACKAGED.name if folder else PACKAGED


def weights_path(values: Mapping[str, Any]) -> Path:
    """The file of the network's weights that the parameters name."""
    folder = values["model_folder"]
    return Path(folder) / WEIGHTS.name if folder else WEIGHTS


def observation_settings(values: Mapping[str, Any]) -> ObservationSettings:
    """How a partial spine is thinned, and how much of a level must be seen."""
    return replace(ObservationSettings(), voxel_mm=values["voxel_size"], smallest_level=values["smallest_level"])


def completion_settings(values: Mapping[str, Any]) -> CompletionSettings:
    """Settings of the completion for a node's parameters."""
    base = CompletionSettings()
    # a standard deviation of zero means an X-ray known exactly; the equations need a positive one
    fit = replace(base.fit, ultrasound_sd=values["ultrasound_sd"], xray_sd=values["xray_sd"],
                  xray_shift_sd_mm=max(values["xray_shift_sd"], 1e-3))
    return CompletionSettings(observation_settings(values), FlexibilitySettings(), fit)
