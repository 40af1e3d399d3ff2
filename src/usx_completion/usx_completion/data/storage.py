"""Data sets as HDF5 files with the authors' keys, and the project's own in the group ``usx``.

The authors' part: ``incomplete_pcds`` (N, P, 3) f64, ``complete_pcds`` (N, P, 3) f64, ``labelmaps`` (N, Nx, 3) f64,
``labels`` (N,) int64, ``number_per_class`` (5,) int64, ``datasets_ids`` (N,) bytes. Their loaders read our files, and
this module reads theirs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_completion.data.dataset import Dataset
from usx_completion.data.layout import CLOUDS, FORMAT, BadDataset
from usx_completion.data.reading import read_dataset

__all__ = ["BadDataset", "DatasetWriter", "copy_split", "read_dataset", "write_authors_layout", "write_dataset"]

PACKING = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
SAMPLES_PER_CHUNK = 1
# of fixed length: texts of any length lie in a heap without checksum, and a damaged one hangs HDF5
LONGEST_TEXT = 320
TEXT = np.dtype(f"S{LONGEST_TEXT}")


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
        self._file = h5py.File(self._part, "w", libver="v110")  # whose headers carry checksums
        return self

    def append(self, part: Dataset) -> None:
        """Add samples; every part must have the same sizes. Raises UsxError when it does not, or lacks extras."""
        if part.extras is None:
            raise UsxError("a data set without extras is written with write_authors_layout")
        self._grow("", {key: getattr(part, name) for key, name in CLOUDS.items()}
                   | {"labels": part.labels, "datasets_ids": _encoded(part.ids)})
        extras = {name: value for name, value in vars(part.extras).items() if value is not None and name != "faces"}
        for name in ("subjects", "splits"):
            extras[name] = _encoded(extras[name])
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
                kind = TEXT if array.dtype.kind == "S" else array.dtype
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
            self._file.attrs[name] = np.bytes_(text.encode() or b" ")


def write_dataset(path: Path, data: Dataset) -> None:
    """Write a whole data set at once. Raises UsxError when it has no extras or no sample."""
    with DatasetWriter(path, data.attributes) as writer:
        writer.append(data)


def write_authors_layout(path: Path, data: Dataset) -> None:
    """Write only what the authors' own files hold, in their shapes and types."""
    with _appearing(path) as file:
        for key, name in CLOUDS.items():
            file.create_dataset(key, data=getattr(data, name), **PACKING)
        _name_samples(file, data.labels, _encoded(data.ids))


def copy_split(source: Path, split: str, target: Path) -> None:
    """Write one split of a file of the project in the authors' layout, sample by sample: memory does not grow with the
    file. Raises UsxError when the split has no sample."""
    with h5py.File(source, "r") as whole, _appearing(target) as file:
        rows = np.flatnonzero(whole["usx/splits"][:] == split.encode())
        if len(rows) == 0:
            raise UsxError(f"{source}: split {split!r} has no sample")
        for key in CLOUDS:
            shape = whole[key].shape[1:]
            copy = file.create_dataset(key, (len(rows), *shape), np.float64, chunks=(SAMPLES_PER_CHUNK, *shape),
                                       **PACKING)
            for place, row in enumerate(rows):
                copy[place] = whole[key][row]
        _name_samples(file, whole["labels"][:][rows], whole["datasets_ids"][:][rows])
        if "licence" in whole.attrs:  # not of their layout, but it binds whoever is handed the file
            file.attrs["licence"] = whole.attrs["licence"]


@contextmanager
def _appearing(path: Path) -> Iterator[h5py.File]:
    """A new file that appears under its name only when it is complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part_of(path)
    try:
        with h5py.File(part, "w", libver="v110") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _name_samples(file: h5py.File, labels: NDArray[np.int64], ids: NDArray[np.bytes_]) -> None:
    file["labels"] = labels
    file["number_per_class"] = np.bincount(labels, minlength=len(LEVELS)).astype(np.int64)
    file.create_dataset("datasets_ids", data=ids, dtype=TEXT, **PACKING)


def _encoded(texts: NDArray[np.str_]) -> NDArray[np.bytes_]:
    encoded = np.char.encode(texts, "utf-8")
    if encoded.dtype.itemsize > LONGEST_TEXT:
        raise UsxError(f"a name of {encoded.dtype.itemsize} bytes does not fit the {LONGEST_TEXT} of a data set file")
    return encoded


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")
