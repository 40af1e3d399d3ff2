"""The content of a data set in memory: the authors' arrays, and the project's own beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_completion.data.examination import LevelSample


@dataclass(frozen=True)
class Extras:
    """What the authors' files lack; N samples in the same order.

    ``normalised_to_spine`` and ``level_to_spine`` (N, 4, 4) float64, mm; ``scale`` (N,) units per mm; ``subjects`` (N,)
    and ``splits`` (N,) text; ``spine`` (N,) number of the spine, the same for its levels; ``owners`` (N, P) uint8,
    the level 20..24 (or 0: clutter) that a partial point really lies on; ``outlines`` (N, M, 3) float32 of the bodies,
    normalised, with ``outline_normals`` (N, M, 2) float32; ``vertices`` (N, V, 3) float32 mm, frame spine, and
    ``faces`` (F, 3) int32 of the template, or None.
    """

    normalised_to_spine: NDArray[np.float64]
    level_to_spine: NDArray[np.float64]
    scale: NDArray[np.float64]
    subjects: NDArray[np.str_]
    splits: NDArray[np.str_]
    spine: NDArray[np.int64]
    owners: NDArray[np.uint8]
    outlines: NDArray[np.float32]
    outline_normals: NDArray[np.float32]
    vertices: NDArray[np.float32] | None = None
    faces: NDArray[np.int32] | None = None


@dataclass(frozen=True)
class Dataset:
    """N samples. ``incomplete``, ``complete`` (N, P, 3) and ``labelmaps`` (N, Nx, 3) float64, normalised; ``labels``
    (N,) int64, 0..4 = L1..L5; ``ids`` (N,) text; ``extras`` None for a file of the authors' layout alone;
    ``attributes``: preset, seed, units and the like, as text."""

    incomplete: NDArray[np.float64]
    complete: NDArray[np.float64]
    labelmaps: NDArray[np.float64]
    labels: NDArray[np.int64]
    ids: NDArray[np.str_]
    extras: Extras | None = None
    attributes: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def number_per_class(self) -> NDArray[np.int64]:
        """(5,) samples of each level."""
        return np.bincount(self.labels, minlength=len(LEVELS))

    @property
    def split_name(self) -> str:
        """Split of the first sample. Raises UsxError for a data set without extras."""
        if self.extras is None:
            raise UsxError("this data set has the authors' layout, which does not say what split a sample is of")
        return str(self.extras.splits[0])

    def chosen(self, rows: NDArray) -> Dataset:
        """The samples of a mask or of indices."""
        extras = self.extras
        if extras is not None:
            fixed = {"faces"}
            parts = {name: value[rows] for name, value in vars(extras).items()
                     if value is not None and name not in fixed}
            extras = replace(extras, **parts)
        return replace(self, incomplete=self.incomplete[rows], complete=self.complete[rows],
                       labelmaps=self.labelmaps[rows], labels=self.labels[rows], ids=self.ids[rows], extras=extras)

    def split(self, name: str) -> Dataset:
        """The samples of "train", "val" or "test". Raises UsxError when the file does not say or has none."""
        if self.extras is None:
            raise UsxError("this data set has the authors' layout, which does not say what split a sample is of")
        rows = self.extras.splits == name
        if not rows.any():
            raise UsxError(f"split {name!r} has no sample; there are {', '.join(np.unique(self.extras.splits))}")
        return self.chosen(rows)


def from_samples(samples: Sequence[LevelSample], spine: Sequence[int], splits: Sequence[str],
                 faces: NDArray[np.int32] | None) -> Dataset:
    """Data set of samples with the number of each one's spine and its split.

    Clouds are rounded to float32 (below 1e-5 mm) and kept as float64: half of their bytes then compress to nothing.
    Raises UsxError when there is no sample.
    """
    if not samples:
        raise UsxError("there is no sample to store: all were dropped")
    inputs = [sample.input for sample in samples]
    vertices = None
    if faces is not None and all(sample.vertices is not None for sample in samples):
        vertices = np.stack([np.asarray(sample.vertices, dtype=np.float32) for sample in samples])
    extras = Extras(
        normalised_to_spine=np.stack([mine.normalisation.normalised_to_mm for mine in inputs]),
        level_to_spine=np.stack([sample.level_to_spine for sample in samples]),
        scale=np.asarray([mine.normalisation.scale for mine in inputs]),
        subjects=np.asarray([sample.subject for sample in samples], dtype=np.str_),
        splits=np.asarray(splits, dtype=np.str_), spine=np.asarray(spine, dtype=np.int64),
        owners=np.stack([mine.owners for mine in inputs]),
        outlines=np.stack([mine.outline for mine in inputs]).astype(np.float32),
        outline_normals=np.stack([mine.outline_normals for mine in inputs]).astype(np.float32),
        vertices=vertices, faces=None if vertices is None else faces)
    ids = [f"{s.subject}_{s.level}_deformation{s.deformation}" for s in samples]
    labels = np.asarray([LEVELS.index(sample.level) for sample in samples], dtype=np.int64)
    return Dataset(_rounded([mine.partial for mine in inputs]), _rounded([sample.complete for sample in samples]),
                   _rounded([mine.filled for mine in inputs]), labels, np.asarray(ids, dtype=np.str_), extras)


def _rounded(clouds: Sequence[NDArray]) -> NDArray[np.float64]:
    return np.stack(clouds).astype(np.float32).astype(np.float64)
