"""The joint cloud of ultrasound and X-ray in frame ``spine``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usx_common import transforms
from usx_common.levels import SOURCE_ULTRASOUND, SOURCE_XRAY

Array = NDArray[np.float64]

MAX_SIDEWAYS_MM = 40.0


@dataclass(frozen=True)
class JointCloud:
    """``points`` (N, 3) mm, frame ``spine``; ``labels`` (N,) VerSe numbers or 0; ``sources`` (N,) 0 ultrasound,
    1 X-ray. Ultrasound first, each in the order of its input."""

    points: Array
    labels: NDArray[np.uint8]
    sources: NDArray[np.uint8]


def join(bone: Array, bone_labels: NDArray, xray_points: Array | None = None, xray_labels: NDArray | None = None,
         placed: tuple[Array, dict[int, float]] | None = None) -> JointCloud:
    """Join ultrasound points (N, 3), frame spine, with labels (N,) and X-ray points (M, 3), frame xray, mm.

    ``placed``: ``xray_to_spine`` (4, 4) and the left coordinate in mm of each level's mid-plane; X-ray points of
    other levels are left out.
    """
    bone_part = (bone, bone_labels.astype(np.uint8), np.full(len(bone), SOURCE_ULTRASOUND, np.uint8))
    if xray_points is None or xray_labels is None or placed is None:
        return JointCloud(*bone_part)
    xray_to_spine, middles = placed
    points, labels = [bone_part[0]], [bone_part[1]]
    for label, middle in middles.items():
        moved = to_mid_plane(xray_points[xray_labels == label], xray_to_spine, middle)
        points.append(moved)
        labels.append(np.full(len(moved), label, np.uint8))
    joined = np.concatenate(labels)
    sources = np.full(len(joined), SOURCE_XRAY, np.uint8)
    sources[: len(bone)] = SOURCE_ULTRASOUND
    return JointCloud(np.concatenate(points), joined, sources)


def to_mid_plane(points: Array, xray_to_spine: Array, left: float) -> Array:
    """X-ray points (N, 3), frame xray, mm, moved along their rays into the plane x = ``left`` of frame spine.

    A lateral X-ray does not tell how far from the source a body is; the ultrasound does. A move of more than 40 mm,
    or rays that run along the plane, leave the points where they are.
    """
    spine = transforms.apply(xray_to_spine, points)
    rays = spine - xray_to_spine[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = (left - xray_to_spine[0, 3]) / rays[:, 0]
        moved = xray_to_spine[:3, 3] + factor[:, None] * rays
        far = np.linalg.norm(moved - spine, axis=1)
    keep = np.isfinite(far) & (far <= MAX_SIDEWAYS_MM)
    return np.where(keep[:, None], moved, spine)
