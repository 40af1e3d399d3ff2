"""Data sets as HDF5 files with the authors' keys, and the project's own in the group ``usx``.

The authors' part: ``incomplete_pcds`` (N, P, 3) f64, ``complete_pcds`` (N, P, 3) f64, ``labelmaps`` (N, Nx, 3) f64,
``labels`` (N,) int64, ``number_per_class`` (5,) int64, ``datasets_ids`` (N,) bytes. Their loaders read our files, and
this module reads theirs.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_completion.data.dataset import Dataset, Extras

FORMAT = "usx data set 1"
CLOUDS = {"incomplete_pcds": "incomplete", "complete_pcds": "complete", "labelmaps": "labelmaps"}
PACKING = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
SAMPLES_PER_CHUNK = 1


class BadDataset(UsxError):
    """A data set file that is missing, corrupt, or of another kind."""


class DatasetWriter:
    """Writes a data set part by part; the file appears under its name only when all is written (``with`` block).

    Left by an exception, nothing appears and a file of that name stays as it was.
    """

    def __init__(self, path: Path, attributes: dict[str, str]) -> None:
        self._path = Path(path)
        self._attributes = attributes
        self._count = 0

    def __enter__(self) -> DatasetWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._part = _part_of(self._path)
        self._file = h5py.File(self._part, "w")
        return self

    def append(self, part: Dataset) -> None:
        """Add samples; every part must have the same sizes. Raises UsxError when it does not, or lacks extras."""
        if part.extras is None:
            raise UsxError("a data set without extras is written with write_authors_layout")
        self._grow("", {key: getattr(part, name) for key, name in CLOUDS.items()}
                   | {"labels": part.labels, "datasets_ids": np.char.encode(part.ids, "utf-8")})
        extras = {name: value for name, value in vars(part.extras).items() if value is not None and name != "faces"}
        for name in ("subjects", "splits"):
            extras[name] = np.char.encode(extras[name], "utf-8")
        self._grow("usx/", extras)
        if part.extras.faces is not None and "usx/faces" not in self._file:
            self._file.create_dataset("usx/faces", data=part.extras.faces, **PACKING)
        self._count += len(part)

    def _grow(self, group: str, arrays: dict[str, NDArray]) -> None:
        for key, array in arrays.items():
            name = group + key
            if name not in self._file:
                if self._count:
                    raise UsxError(f"this part has {key!r}, which earlier parts lack")
                kind = h5py.string_dtype("utf-8") if array.dtype.kind == "S" else array.dtype
                chunk = SAMPLES_PER_CHUNK if array.ndim > 1 and array[0].nbytes > 4096 else 256
                self._file.create_dataset(name, shape=(0, *array.shape[1:]), maxshape=(None, *array.shape[1:]),
                                          chunks=(chunk, *array.shape[1:]), dtype=kind, **PACKING)
            stored = self._file[name]
            if stored.shape[1:] != array.shape[1:]:
                raise UsxError(f"{key} of shape {array.shape[1:]} does not fit the file's {stored.shape[1:]}")
            stored.resize(self._count + len(array), axis=0)
            stored[self._count:] = array

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        complete = False
        try:
            if kind is None:
                self._finish()
                complete = True
        finally:
            self._file.close()
            if not complete:
                self._part.unlink(missing_ok=True)
        if complete:
            self._part.replace(self._path)

    def _finish(self) -> None:
        if self._count == 0:
            raise UsxError(f"{self._path} was not written: there is no sample; all were dropped")
        labels = self._file["labels"][:]
        self._file["number_per_class"] = np.bincount(labels, minlength=len(LEVELS)).astype(np.int64)
        for name, text in {**self._attributes, "format": FORMAT, "units": "mm; clouds normalised"}.items():
            self._file.attrs[name] = text


def write_dataset(path: Path, data: Dataset) -> None:
    """Write a whole data set at once. Raises UsxError when it has no extras or no sample."""
    with DatasetWriter(path, data.attributes) as writer:
        writer.append(data)


def write_authors_layout(path: Path, data: Dataset) -> None:
    """Write only what the authors' own files hold, in their shapes and types."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part_of(path)
    try:
        with h5py.File(part, "w") as file:
            for key, name in CLOUDS.items():
                file.create_dataset(key, data=getattr(data, name), **PACKING)
            file["labels"] = data.labels
            file["number_per_class"] = data.number_per_class
            file.create_dataset("datasets_ids", data=np.char.encode(data.ids, "utf-8").astype(object),
                                dtype=h5py.string_dtype("utf-8"))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_dataset(path: Path, split: str | None = None) -> Dataset:
    """A data set file, ours or of the authors' layout; ``split``: only "train", "val" or "test".

    Raises BadDataset naming the file and the reason when it is missing, truncated, lacks a key, or holds arrays of
    other shapes or types, numbers that are not finite, or frames that do not agree with the scales.
    """
    path = Path(path)
    if not path.is_file():
        raise BadDataset(f"data set {path} does not exist; make one with make_dataset")
    try:
        with h5py.File(path, "r") as file:
            _check_memory(path, file)
            data = _read(path, file)
    except (OSError, RuntimeError, KeyError) as error:
        raise BadDataset(f"{path} cannot be read as HDF5: {_one_line(error)}; make it again") from error
    try:
        return data if split is None else data.split(split)
    except UsxError as error:
        raise BadDataset(f"{path}: {error}") from error


def _read(path: Path, file: h5py.File) -> Dataset:
    missing = [key for key in (*CLOUDS, "labels", "number_per_class", "datasets_ids") if key not in file]
    if missing:
        raise BadDataset(f"{path} lacks {', '.join(missing)}; it is no data set of vertebrae")
    arrays = {name: _cloud(path, file, key) for key, name in CLOUDS.items()}
    labels = _whole(path, file, "labels")
    count = len(labels)
    for key, name in CLOUDS.items():
        if len(arrays[name]) != count:
            raise BadDataset(f"{path}: {key} has {len(arrays[name])} samples, labels has {count}")
    if count == 0:
        raise BadDataset(f"{path} holds no sample")
    if labels.min() < 0 or labels.max() >= len(LEVELS):
        raise BadDataset(f"{path}: labels hold {labels.min()}..{labels.max()}; they must be 0..4 for L1..L5")
    if not np.array_equal(_whole(path, file, "number_per_class"), np.bincount(labels, minlength=len(LEVELS))):
        raise BadDataset(f"{path}: number_per_class does not agree with labels")
    ids = _text(file, "datasets_ids")
    if len(ids) != count:
        raise BadDataset(f"{path}: datasets_ids has {len(ids)} entries, labels has {count}")
    extras = _extras(path, file, count) if "usx" in file else None
    attributes = {name: str(value) for name, value in file.attrs.items()}
    return Dataset(labels=labels, ids=ids, extras=extras, attributes=attributes, **arrays)


def _check_memory(path: Path, file: h5py.File) -> None:
    """Refuse before anything is allocated what the machine's free memory does not hold."""
    needed = 0
    for group in (file, file.get("usx", {})):
        needed += sum(stored.size * max(stored.dtype.itemsize, 8) for stored in group.values()
                      if isinstance(stored, h5py.Dataset))
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > free:
        raise BadDataset(f"{path} needs {needed / 2**30:.1f} GiB of memory and {free / 2**30:.1f} GiB are free: make "
                         "several smaller files, or train on spines made on the fly")


def _extras(path: Path, file: h5py.File, count: int) -> Extras:
    group = file["usx"]
    values: dict[str, Any] = {}
    optional = ("vertices", "faces")
    for name in Extras.__dataclass_fields__:
        if name not in group:
            if name not in optional:
                raise BadDataset(f"{path} lacks usx/{name}; the file is damaged or of another version")
            continue
        value = _text(group, name) if name in ("subjects", "splits") else group[name][:]
        if name != "faces" and len(value) != count:
            raise BadDataset(f"{path}: usx/{name} has {len(value)} entries, labels has {count}")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise BadDataset(f"{path}: usx/{name} holds numbers that are not finite")
        values[name] = value
    for name in ("normalised_to_spine", "level_to_spine"):
        if values[name].shape != (count, 4, 4):
            raise BadDataset(f"{path}: usx/{name} has shape {values[name].shape}; it must be {(count, 4, 4)}")
    units = np.cbrt(np.linalg.det(values["normalised_to_spine"][:, :3, :3]))
    if not np.allclose(units * values["scale"], 1.0, rtol=1e-6):
        raise BadDataset(f"{path}: usx/scale does not agree with usx/normalised_to_spine")
    return Extras(**values)


def _cloud(path: Path, file: h5py.File, key: str) -> NDArray[np.float64]:
    stored = file[key]
    if stored.ndim != 3 or stored.shape[2] != 3 or stored.dtype.kind != "f":
        raise BadDataset(f"{path}: {key} is {stored.dtype} of shape {stored.shape}; it must be floats (N, points, 3)")
    values = stored[:].astype(np.float64, copy=False)
    if not np.isfinite(values).all():
        raise BadDataset(f"{path}: {key} holds numbers that are not finite")
    return values


def _whole(path: Path, file: h5py.File, key: str) -> NDArray[np.int64]:
    stored = file[key]
    if stored.ndim != 1 or stored.dtype.kind not in "iu":
        raise BadDataset(f"{path}: {key} is {stored.dtype} of shape {stored.shape}; it must be whole numbers (N,)")
    return stored[:].astype(np.int64)


def _text(file: h5py.Group, key: str) -> NDArray[np.str_]:
    values = [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in file[key][:]]
    return np.asarray(values, dtype=np.str_)


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
