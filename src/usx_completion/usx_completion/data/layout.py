"""What a data set file holds: kind and shape of every array, checked before anything of it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import DTypeLike

from usx_common.errors import UsxError
from usx_common.levels import LEVELS

FORMAT = "usx data set 1"
UNKNOWN_LICENCE = "unknown"
CLOUDS = {"incomplete_pcds": "incomplete", "complete_pcds": "complete", "labelmaps": "labelmaps"}
WORDS = {"f": "floats", "iu": "whole numbers", "u": "whole numbers without sign", "text": "text"}


class BadDataset(UsxError):
    """A data set file that is missing, corrupt, or of another kind."""


@dataclass(frozen=True)
class Expected:
    """An array: ``kinds`` of numpy types (or "text"), ``shape`` with names for sizes that agree between arrays, and
    the type ``read`` that it has in memory."""

    kinds: str
    shape: tuple[int | str, ...]
    read: DTypeLike = np.float64
    optional: bool = False


AUTHORS_ARRAYS = {
    "incomplete_pcds": Expected("f", ("N", "P", 3)), "complete_pcds": Expected("f", ("N", "P", 3)),
    "labelmaps": Expected("f", ("N", "Nx", 3)), "labels": Expected("iu", ("N",), np.int64),
    "number_per_class": Expected("iu", (len(LEVELS),), np.int64), "datasets_ids": Expected("text", ("N",)),
}
EXTRA_ARRAYS = {
    "normalised_to_spine": Expected("f", ("N", 4, 4)), "level_to_spine": Expected("f", ("N", 4, 4)),
    "scale": Expected("f", ("N",)), "subjects": Expected("text", ("N",)), "splits": Expected("text", ("N",)),
    "spine": Expected("iu", ("N",), np.int64), "owners": Expected("u", ("N", "P"), np.uint8),
    "outlines": Expected("f", ("N", "M", 3), np.float32), "outline_normals": Expected("f", ("N", "M", 2), np.float32),
    "vertices": Expected("f", ("N", "V", 3), np.float32, optional=True),
    "faces": Expected("iu", ("F", 3), np.int32, optional=True),
}


def checked_arrays(path: Path, file: h5py.File) -> dict[str, h5py.Dataset]:
    """The file's arrays by name ("labels", "usx/scale"), nothing of them read.

    Raises BadDataset naming the first array that is missing, of another kind, or does not fit the others.
    """
    sizes: dict[str, tuple[int, str]] = {}
    arrays = {key: _checked(path, file, key, expected, sizes) for key, expected in AUTHORS_ARRAYS.items()}
    if "usx" in file:
        if not isinstance(file["usx"], h5py.Group):
            raise BadDataset(f"{path}: usx is no group; the file is damaged or of another kind")
        told = text_of(file.attrs.get("format"))
        if told != FORMAT:
            raise BadDataset(f"{path} has the format {told}; this version reads {FORMAT}: make it again")
        for key, expected in EXTRA_ARRAYS.items():
            if f"usx/{key}" in file or not expected.optional:
                arrays[f"usx/{key}"] = _checked(path, file, f"usx/{key}", expected, sizes)
        if ("usx/vertices" in arrays) != ("usx/faces" in arrays):
            raise BadDataset(f"{path} has only one of usx/vertices and usx/faces; neither is of use alone")
    return arrays


def text_of(value: object) -> str:
    """Text of a stored value, whether bytes or text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def expected_of(key: str) -> Expected:
    """What the array of a key must be."""
    return EXTRA_ARRAYS[key[4:]] if key.startswith("usx/") else AUTHORS_ARRAYS[key]


def _checked(path: Path, file: h5py.File, key: str, expected: Expected, sizes: dict[str, tuple[int, str]]
             ) -> h5py.Dataset:
    if key not in file:
        raise BadDataset(f"{path} lacks {key}; it is no data set of vertebrae, or damaged, or of another version")
    stored = file[key]
    if not isinstance(stored, h5py.Dataset):
        raise BadDataset(f"{path}: {key} is no array; the file is damaged or of another kind")
    text = h5py.check_string_dtype(stored.dtype) is not None
    fits = text if expected.kinds == "text" else not text and stored.dtype.kind in expected.kinds
    if not fits or np.ndim(stored.shape) != 1 or len(stored.shape) != len(expected.shape):
        raise BadDataset(f"{path}: {key} is {stored.dtype} of shape {stored.shape}; it must be "
                         f"{WORDS[expected.kinds]} {_form(expected)}")
    for size, name in zip(stored.shape, expected.shape, strict=True):
        needed, because = sizes.setdefault(name, (size, key)) if isinstance(name, str) else (name, "the format")
        if size != needed:
            raise BadDataset(f"{path}: {key} has shape {stored.shape}; it must be {_form(expected)}, with "
                             f"{name if isinstance(name, str) else needed} = {needed} by {because}")
        if size == 0:
            raise BadDataset(f"{path}: {key} has shape {stored.shape}; the file holds no sample")
    return stored


def _form(expected: Expected) -> str:
    return "(" + ", ".join(str(size) for size in expected.shape) + ("," if len(expected.shape) == 1 else "") + ")"
