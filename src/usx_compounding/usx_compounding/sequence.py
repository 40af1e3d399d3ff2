"""A tracked ultrasound sequence in memory: images, and what a tracker and a clock said about each of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.transforms import Matrix, parse_matrix


class BadSequence(UsxError):
    """A sequence, or the file of one, that cannot be used as it is."""


@dataclass(frozen=True)
class TransformReading:
    """One transform of one frame: (4, 4) mm with p_b = a_to_b @ p_a, and whether the tracker vouched for it."""

    a_to_b: Matrix
    ok: bool


@dataclass(frozen=True)
class Sequence:
    """Frames of one recording.

    ``images``: (frames, rows, columns), orientation MF (see `orientation`); (frames, 0, 0) when only poses were
    recorded. ``fields``: one mapping of field name to text per frame, as in the file (``Timestamp``,
    ``ProbeToTrackerTransform``, ``ProbeToTrackerTransformStatus``, ``ImageStatus`` ...). ``header``: what the file said
    besides geometry and frames.
    """

    images: NDArray
    fields: list[dict[str, str]]
    header: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.images.ndim != 3 or len(self.images) != len(self.fields):
            raise BadSequence(f"{len(self.fields)} sets of frame fields do not fit images of shape "
                              f"{self.images.shape}: (frames, rows, columns) is needed")

    def __len__(self) -> int:
        return len(self.fields)

    def timestamp(self, frame: int) -> float:
        """Time of a frame, s. Raises BadSequence naming frame and text when it is missing or no finite number."""
        text = self.fields[frame].get("Timestamp", "")
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not math.isfinite(seconds):
            raise BadSequence(f"frame {frame} has no usable Timestamp (it says {text!r})")
        return seconds

    def timestamps(self) -> NDArray[np.float64]:
        """(frames,) times, s. Raises BadSequence naming the first frame without one."""
        return np.array([self.timestamp(frame) for frame in range(len(self))])

    def image_ok(self, frame: int) -> bool:
        """Whether the recorder vouched for the image; a frame that says nothing of it is taken as good."""
        fields = self.fields[frame]
        return fields.get("ImageStatus", fields.get("Status", "OK")).strip().upper() == "OK"

    def transform_names(self) -> list[str]:
        """Names of the transforms that occur in any frame, such as ``ProbeToTracker``."""
        names = {key[:-len("Transform")] for fields in self.fields for key in fields if key.endswith("Transform")}
        return sorted(names)

    def transform(self, name: str, frame: int) -> TransformReading:
        """Transform ``name`` (such as ``ProbeToTracker``) of a frame; not ok where status or numbers are missing.

        Raises BadSequence naming frame and transform when its text is not 16 finite numbers.
        """
        fields = self.fields[frame]
        text = fields.get(f"{name}Transform")
        if text is None:
            return TransformReading(np.eye(4), ok=False)
        ok = fields.get(f"{name}TransformStatus", "OK").strip().upper() == "OK"
        try:
            return TransformReading(parse_matrix([float(number) for number in text.split()], name), ok)
        except ValueError as error:
            if not ok:  # a tracker that lost its tool may write anything
                return TransformReading(np.eye(4), ok=False)
            raise BadSequence(f"frame {frame}: transform {name} is not 16 finite numbers: {text[:80]!r}") from error


def matrix_text(a_to_b: Matrix) -> str:
    """A (4, 4) matrix as a sequence file spells it: 16 numbers, row by row, read back without loss."""
    return " ".join(repr(float(number)) for number in np.asarray(a_to_b).reshape(-1))
