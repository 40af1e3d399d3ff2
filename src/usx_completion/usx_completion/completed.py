"""What a completion is: the levels that could be completed, and the reasons for what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_common.transforms import Matrix

XRAY = "xray"


@dataclass(frozen=True)
class CompletedLevel:
    """One complete vertebra: ``mesh`` (mm, frame spine, watertight), ``sigma`` (V,) mm, ``level_to_spine`` (4, 4);
    ``by_xray``: no ultrasound shows it."""

    mesh: Mesh
    sigma: NDArray[np.float64]
    level_to_spine: Matrix
    by_xray: bool = False


@dataclass(frozen=True)
class Completion:
    """The levels that could be completed, and the ``reasons`` (level, "xray" or a joint -> sentence) for what is
    missing. ``xray_shift`` (3,): by how much the X-ray lies wrong in its plane, posterior and cranial in mm, and turned
    in rad; zeros without one."""

    levels: dict[str, CompletedLevel]
    reasons: dict[str, str]
    dropped_points: int = 0
    xray_shift: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))


def reasons_for(levels: Mapping[str, CompletedLevel], refused: Mapping[str, str], missing: Mapping[str, str]
                ) -> dict[str, str]:
    """The reasons of a completion: ``missing`` of levels that are not among ``levels``, and ``refused`` of bodies in
    the X-ray that were not used, whether their level is among them or not."""
    reasons = {name: reason for name, reason in {**refused, **missing}.items() if name not in levels}
    unused = [f"the body of {name} was not used: {reason}" for name, reason in refused.items()
              if name in LEVELS and reasons.get(name) != reason]
    if unused:
        reasons[XRAY] = "; ".join([*([reasons[XRAY]] if XRAY in reasons else []), *unused])
    return reasons
