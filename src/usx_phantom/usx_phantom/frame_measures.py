"""The measures of the ultrasound report for one set of frames, real or simulated."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from usx_phantom.image_statistics import BadImage, BoneLine, find_bone

NEAR_APEX = 2.0  # mm: lines whose bone is no deeper than this below the shallowest see it face on
PROFILE = (-6.0, 14.0)  # mm along the beam, relative to the bone, of the mean profile


@dataclass(frozen=True)
class FrameSet:
    """Grey scan lines (frames, lines, samples), their spacing in mm, the near field in mm that is left out, and where
    it is known the true depth of bone (frames, lines) in mm, inf where there is none."""

    name: str
    lines: NDArray
    sample_mm: float
    line_mm: float
    skip_mm: float
    truth: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Measures:
    """Values per bone line of a set, by the name of the measure, the mean profile over `depth` mm, and per frame the
    samples (lines,) of the bone that was measured, -1 where none was; None for a frame without bone."""

    values: dict[str, NDArray[np.float64]]
    depth: NDArray[np.float64]
    profile: NDArray[np.float64]
    bones: list[NDArray[np.int64] | None] = field(default_factory=list)


def measure_frames(frames: FrameSet) -> Measures:
    """Bone lines of a set and what is measured along them.

    Where the truth is known, lines whose bone was found more than 3 mm from it are left out, as a reader who marks
    bone by hand would. Raises BadImage where no frame of the set shows bone.
    """
    rows: dict[str, list[NDArray]] = {}
    profiles: list[NDArray[np.float64]] = []
    bones: list[NDArray[np.int64] | None] = []
    depth = np.arange(PROFILE[0], PROFILE[1], 0.1)
    for number, lines in enumerate(frames.lines):
        try:
            bone = find_bone(lines, frames.sample_mm, frames.line_mm, frames.skip_mm)
        except BadImage:
            bones.append(None)
            continue
        truth = None if frames.truth is None else frames.truth[number]
        keep = _kept(bone, frames, truth)
        sample = bone.sample.copy()
        sample[np.flatnonzero(sample >= 0)[~keep]] = -1
        bones.append(sample)
        if not keep.any():
            continue
        found = np.flatnonzero(bone.sample >= 0)[keep]
        for name, values in _values(lines, bone, found, keep, frames).items():
            rows.setdefault(name, []).append(values)
        profiles.append(_profile(lines, found, bone.sample[found], depth / frames.sample_mm))
    if not profiles:
        raise BadImage(f"{frames.name}: none of {len(frames.lines)} frames shows bone")
    return Measures({name: np.concatenate(values) for name, values in rows.items()}, depth,
                    np.concatenate(profiles).mean(axis=0), bones)


def _kept(bone: BoneLine, frames: FrameSet, truth: NDArray[np.float64] | None) -> NDArray[np.bool_]:
    sample = bone.sample[bone.sample >= 0]
    if truth is None:
        return np.ones(len(sample), dtype=bool)
    return np.abs(sample * frames.sample_mm - truth[bone.sample >= 0]) < 3.0


def _values(lines: NDArray, bone: BoneLine, found: NDArray, keep: NDArray, frames: FrameSet) -> dict[str, NDArray]:
    sample = bone.sample[found]
    skip = int(frames.skip_mm / frames.sample_mm)
    gap = int(2.0 / frames.sample_mm)
    tissue = np.array([lines[j, skip: max(k - gap, skip + 1)].mean() for j, k in zip(found, sample, strict=True)])
    shallow = (sample - sample.min()) * frames.sample_mm < NEAR_APEX
    return {"bone, grey": bone.peak[keep], "shadow, grey": bone.shadow[keep], "tissue above the bone, grey": tissue,
            "bone over shadow, grey": bone.contrast[keep], "bone over tissue, grey": bone.peak[keep] - tissue,
            "bone line, FWHM along the beam, mm": bone.thickness[keep],
            "second echo over shadow, grey": _second_echo(lines[found[shallow]], sample[shallow], frames.sample_mm)}


def _second_echo(lines: NDArray, sample: NDArray, sample_mm: float) -> NDArray[np.float64]:
    """Grey at twice the bone's depth less the shadow before it, of lines where both lie in the image."""
    rows = []
    wide = round(2.0 / sample_mm)
    for line, k in zip(lines, sample, strict=True):
        if 2 * k + wide < line.size and k * sample_mm > 15.0:
            shadow = line[int(1.5 * k): int(1.75 * k)].mean()
            rows.append(line[2 * k - wide: 2 * k + wide + 1].mean() - shadow)
    return np.array(rows, dtype=np.float64)


def _profile(lines: NDArray, found: NDArray, sample: NDArray, offsets: NDArray) -> NDArray[np.float64]:
    axis = np.arange(lines.shape[1])
    return np.array([np.interp(k + offsets, axis, lines[j]) for j, k in zip(found, sample, strict=True)])
