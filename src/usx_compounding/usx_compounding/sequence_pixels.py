"""Pixels of a sequence file: from stored bytes to images and back, with every size checked before it is believed."""

from __future__ import annotations

import bz2
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_compounding import orientation
from usx_compounding.sequence import BadSequence

MAX_HEADER_BYTES = 256 * 2**20
MAX_PIXEL_BYTES = 32 * 2**30
LUMA = np.array([77, 150, 29], np.uint32)  # ITU-R BT.601 in 1/256


@dataclass(frozen=True)
class PixelLayout:
    """How the pixels of a file lie: frame count, columns and rows as stored, channels, element type with byte order."""

    frames: int
    columns: int
    rows: int
    channels: int
    element: np.dtype
    orientation: str
    frames_first: bool = False

    @property
    def byte_count(self) -> int:
        return self.frames * self.columns * self.rows * self.channels * self.element.itemsize


def check_layout(layout: PixelLayout, path: Path) -> None:
    """Raise BadSequence when the sizes make no sense or no machine could hold them."""
    if layout.frames < 1 or layout.columns < 0 or layout.rows < 0:
        raise BadSequence(f"{path}: {layout.frames} frames of {layout.columns} x {layout.rows} pixels make no sequence")
    if layout.channels not in (1, 3):
        raise BadSequence(f"{path}: {layout.channels} values per pixel; 1 (grey) or 3 (colour) are readable")
    if layout.byte_count > MAX_PIXEL_BYTES:
        raise BadSequence(f"{path}: its header claims {layout.byte_count} bytes of pixels; limit is {MAX_PIXEL_BYTES}")
    try:
        orientation.parse(layout.orientation)
    except UsxError as error:
        raise BadSequence(f"{path}: {error}") from error


def to_images(data: bytes, layout: PixelLayout, path: Path) -> NDArray:
    """(frames, rows, columns) images, orientation MF, of a file's raw pixel bytes; colour becomes grey (its luma).

    Raises BadSequence when the bytes are fewer than the layout needs.
    """
    if len(data) < layout.byte_count:
        raise BadSequence(f"{path}: holds {len(data)} bytes of pixels, its header says {layout.byte_count}: cut short?")
    values = np.frombuffer(data, layout.element, count=layout.byte_count // layout.element.itemsize)
    if layout.frames_first:  # the list axis runs fastest
        values = values.reshape(layout.rows, layout.columns, layout.channels, layout.frames)
        values = np.moveaxis(values, -1, 0)
    values = values.reshape(layout.frames, layout.rows, layout.columns, layout.channels)
    grey = values[..., 0] if layout.channels == 1 else _luma(values, path)
    inside = orientation.to_inside(grey, layout.orientation)
    return np.ascontiguousarray(inside.astype(inside.dtype.newbyteorder("="), copy=False))


def inflate(stream: BinaryIO, expected: int, encoding: str, path: Path) -> bytes:
    """Decompress at most ``expected`` bytes of a ``zlib``, ``gzip`` or ``bzip2`` stream.

    More is never produced, so a small file cannot fill the memory. Raises BadSequence for damaged or short data.
    """
    if encoding == "bzip2":
        decompressor = bz2.BZ2Decompressor()
    else:
        decompressor = zlib.decompressobj(zlib.MAX_WBITS | (16 if encoding == "gzip" else 0))  # type: ignore[assignment]
    try:
        data = decompressor.decompress(stream.read(), max(expected, 1))
    except (zlib.error, OSError) as error:
        raise BadSequence(f"{path}: the compressed pixels are damaged ({error})") from error
    if len(data) < expected:
        raise BadSequence(f"{path}: the compressed pixels end after {len(data)} of {expected} bytes: cut short?")
    return data


def open_pixels(path: Path, sibling: str) -> BinaryIO:
    """Open the pixel file that a header names. Raises BadSequence unless it is a plain neighbour of ``path``."""
    if not sibling or Path(sibling).name != sibling or sibling in (".", ".."):
        raise BadSequence(f"{path}: pixel file {sibling!r} is refused: it must lie beside the header, without a folder")
    try:
        return (path.parent / sibling).open("rb")
    except OSError as error:
        raise BadSequence(f"{path}: pixel file {sibling!r} cannot be read: {error.strerror}") from error




def _luma(values: NDArray, path: Path) -> NDArray:
    if values.dtype != np.uint8:
        raise BadSequence(f"{path}: colour pixels of type {values.dtype} are not readable; 8 bit are")
    return ((values.astype(np.uint32) @ LUMA) >> 8).astype(np.uint8)
