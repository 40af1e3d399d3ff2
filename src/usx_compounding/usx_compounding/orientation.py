"""Orientation codes of ultrasound images (IGSIO), and the turn that brings any of them to the one used inside.

A code's first letter says where the columns of an image point, the second where its rows point:
M(arked) or U(nmarked) side of the probe, N(ear) the transducer or F(ar) from it. An optional third letter is the
order of the frames in depth, A(scending) or D(escending). Inside usx every image is MF: columns run to the marked side,
rows run away from the transducer, which is the convention that PLUS calibrations refer to.
Source: "Ultrasound image orientation", PLUS toolkit user manual.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError

INSIDE = "MF"
CODES = ("MF", "MN", "UF", "UN", "FM", "FU", "NM", "NU")


class UnknownOrientation(UsxError):
    """An image orientation code that says nothing usable."""


@dataclass(frozen=True)
class Turn:
    """What turns an image to MF: exchange rows and columns first, then reverse columns, rows, frames in depth."""

    transpose: bool
    reverse_columns: bool
    reverse_rows: bool
    reverse_depth: bool


def parse(code: str) -> Turn:
    """Turn that brings images of ``code`` to MF. Raises UnknownOrientation naming the code."""
    letters = code.strip().upper()
    plane, depth = letters[:2], letters[2:]
    if plane not in CODES or depth not in ("", "A", "D"):
        raise UnknownOrientation(
            f"image orientation {code!r} is unknown: it must be one of {', '.join(CODES)}, A or D may follow")
    transpose = plane[0] in "FN"
    return Turn(transpose, reverse_columns="U" in plane, reverse_rows="N" in plane, reverse_depth=depth == "D")


def to_inside(images: NDArray, code: str) -> NDArray:
    """Images (..., rows, columns) of orientation ``code`` as MF; a view of the same memory."""
    turn = parse(code)
    if turn.transpose:
        images = np.swapaxes(images, -1, -2)
    return _reverse(images, turn)


def from_inside(images: NDArray, code: str) -> NDArray:
    """MF images (..., rows, columns) as ``code``; the inverse of `to_inside`."""
    turn = parse(code)
    images = _reverse(images, turn)
    return np.swapaxes(images, -1, -2) if turn.transpose else images


def _reverse(images: NDArray, turn: Turn) -> NDArray:
    if turn.reverse_columns:
        images = images[..., ::-1]
    if turn.reverse_rows:
        images = images[..., ::-1, :]
    return images
