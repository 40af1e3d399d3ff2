"""Reads data set files, the project's and the authors', and refuses what is damaged or foreign with the reason."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_completion.data.dataset import Dataset, Extras
from usx_completion.data.free_memory import free_memory_bytes
from usx_completion.data.layout import CLOUDS, BadDataset, checked_arrays, expected_of, text_of
from usx_completion.data.splits import NAMES, check_no_straddling

# what h5py raises for damaged files besides OSError: their headers lead it anywhere
DAMAGE = (OSError, RuntimeError, LookupError, AttributeError, TypeError, ValueError, ArithmeticError, MemoryError)
OWNERS = (0, *range(20, 25))


def read_dataset(path: Path, split: str | None = None) -> Dataset:
    """A data set file, ours or of the authors' layout; ``split``: only "train", "val" or "test", whose samples alone
    are then read.

    Raises BadDataset naming the file and the reason when it is missing, truncated, lacks an array, holds arrays of
    other shapes or types, numbers that are not finite, frames that are no similarities or do not agree with the
    scales, a subject in two splits, or more than the free memory takes.
    """
    path = Path(path)
    if not path.is_file():
        raise BadDataset(f"data set {path} does not exist; make one with make_dataset")
    try:
        with h5py.File(path, "r") as file:
            return _read(path, file, split)
    except UsxError:
        raise
    except DAMAGE as error:
        raise BadDataset(f"{path} cannot be read as HDF5: {_one_line(error)}; make it again") from error


def _read(path: Path, file: h5py.File, split: str | None) -> Dataset:
    arrays = checked_arrays(path, file)
    labels = _labels(path, arrays)
    subjects, splits = _who(path, arrays) if "usx/splits" in arrays else (None, None)
    rows = np.arange(len(labels)) if split is None else _rows(path, splits, split)
    _check_memory(path, arrays, len(rows) / len(labels))
    clouds = {name: _numbers(path, arrays, key, rows) for key, name in CLOUDS.items()}
    extras = None
    if subjects is not None and splits is not None:
        extras = _extras(path, arrays, rows, {"subjects": subjects[rows], "splits": splits[rows]})
    attributes = {name: text_of(value) for name, value in file.attrs.items()}
    return Dataset(labels=labels[rows], ids=_text(path, arrays, "datasets_ids")[rows], extras=extras,
                   attributes=attributes, **clouds)


def _labels(path: Path, arrays: dict[str, h5py.Dataset]) -> NDArray[np.int64]:
    labels = _numbers(path, arrays, "labels")
    if labels.min() < 0 or labels.max() >= len(LEVELS):
        raise BadDataset(f"{path}: labels hold {labels.min()}..{labels.max()}; they must be 0..4 for L1..L5")
    if not np.array_equal(_numbers(path, arrays, "number_per_class"), np.bincount(labels, minlength=len(LEVELS))):
        raise BadDataset(f"{path}: number_per_class does not agree with labels")
    return labels


def _who(path: Path, arrays: dict[str, h5py.Dataset]) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    subjects, splits = (_text(path, arrays, key) for key in ("usx/subjects", "usx/splits"))
    foreign = sorted(set(splits.tolist()) - set(NAMES))
    if foreign:
        raise BadDataset(f"{path}: usx/splits names {foreign[0]!r}; known are {', '.join(NAMES)}")
    try:
        check_no_straddling(subjects.tolist(), splits.tolist())
    except UsxError as error:
        raise BadDataset(f"{path}: {error}") from error
    return subjects, splits


def _rows(path: Path, splits: NDArray[np.str_] | None, split: str) -> NDArray[np.int64]:
    if splits is None:
        raise BadDataset(f"{path}: this data set has the authors' layout, which does not say what split a sample is of")
    rows = np.flatnonzero(splits == split)
    if len(rows) == 0:
        raise BadDataset(f"{path}: split {split!r} has no sample; there are {', '.join(np.unique(splits))}")
    return rows


def _check_memory(path: Path, arrays: dict[str, h5py.Dataset], share: float) -> None:
    """Refuse before anything large is allocated what the machine's memory does not hold."""
    kept = sum(stored.size * max(stored.dtype.itemsize, 8) for stored in arrays.values())
    largest = max(stored.size for stored in arrays.values())
    needed, free = share * (kept + largest), free_memory_bytes()  # a byte a number while its finiteness is checked
    if needed > free:
        raise BadDataset(f"{path} needs {needed / 2**30:.1f} GiB of memory and {free / 2**30:.1f} GiB are free: make "
                         "several smaller files, read one split, or train on spines made on the fly")


def _extras(path: Path, arrays: dict[str, h5py.Dataset], rows: NDArray[np.int64], values: dict[str, Any]) -> Extras:
    for key in arrays:
        name = key.removeprefix("usx/")
        if key != name and name not in values:
            values[name] = _numbers(path, arrays, key, None if name == "faces" else rows)
    strange = np.setdiff1d(values["owners"], OWNERS)
    if len(strange):
        raise BadDataset(f"{path}: usx/owners holds {strange[0]}; it must be 0 or 20..24 for L1..L5")
    if "faces" in values and not 0 <= values["faces"].min() <= values["faces"].max() < values["vertices"].shape[1]:
        raise BadDataset(f"{path}: usx/faces names vertices {values['faces'].min()}..{values['faces'].max()}; there "
                         f"are {values['vertices'].shape[1]}")
    scale = values["scale"]
    if scale.min() <= 0.0:
        raise BadDataset(f"{path}: usx/scale holds {scale.min():g}; it must be above 0 units per mm")
    if not _are_similarities(values["normalised_to_spine"], scale):
        raise BadDataset(f"{path}: usx/scale does not agree with usx/normalised_to_spine, which must turn, shift and "
                         "divide by the scale, no more")
    if not _are_similarities(values["level_to_spine"], np.ones(len(scale))):
        raise BadDataset(f"{path}: usx/level_to_spine holds a matrix that is no rigid motion")
    return Extras(**values)


def _are_similarities(matrices: NDArray, scale: NDArray) -> bool:
    """Whether all (N, 4, 4) are a rotation divided by ``scale`` (N,), and a translation."""
    rotations = matrices[:, :3, :3] * scale[:, None, None]
    straight = np.allclose(rotations @ np.swapaxes(rotations, 1, 2), np.eye(3), rtol=0.0, atol=1e-5)
    return bool(straight and (np.linalg.det(rotations) > 0.0).all() and (matrices[:, 3] == [0.0, 0.0, 0.0, 1.0]).all())


def _numbers(path: Path, arrays: dict[str, h5py.Dataset], key: str, rows: NDArray[np.int64] | None = None) -> NDArray:
    """Rows (rising; None: all) of an array in the type of memory; runs of neighbours are read at once."""
    stored = arrays[key]
    rows = np.arange(len(stored)) if rows is None else rows
    values = np.empty((len(rows), *stored.shape[1:]), dtype=expected_of(key).read)
    starts = np.flatnonzero(np.r_[True, np.diff(rows) != 1, True])
    for first, last in pairwise(starts):
        stored.read_direct(values, np.s_[rows[first]:rows[last - 1] + 1], np.s_[first:last])
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise BadDataset(f"{path}: {key} holds numbers that are not finite")
    return values


def _text(path: Path, arrays: dict[str, h5py.Dataset], key: str) -> NDArray[np.str_]:
    values = [text_of(value) for value in arrays[key][:]]
    if not all(values):
        raise BadDataset(f"{path}: {key} holds an empty name")
    return np.asarray(values, dtype=np.str_)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
