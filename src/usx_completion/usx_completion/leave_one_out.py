"""How well a shape model learned from the other people explains a person: leave one subject out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.transforms import apply
from usx_completion.people import People, along_normals, analyse
from usx_completion.rigid import align


@dataclass(frozen=True)
class LeftOut:
    """N vertebrae, each seen by a model that knows nothing of its person; C numbers of modes (0: the mean alone).

    ``vertex_mm`` and ``normal_mm`` (N, C): mean over the vertices of the distance left, vertex to vertex and its part
    along the normal; ``offsets`` (N, V, 3): what the largest number of modes leaves over, mm; ``rows`` (N,) of the
    people; ``levels``, ``subjects`` (N,).
    """

    mode_counts: tuple[int, ...]
    vertex_mm: NDArray[np.float64]
    normal_mm: NDArray[np.float64]
    offsets: NDArray[np.float64]
    rows: NDArray[np.int64]
    levels: NDArray[np.int64]
    subjects: NDArray[np.int64]

    def by_level(self, values: NDArray) -> NDArray[np.float64]:
        """(L, ...) means of values (N, ...) over the vertebrae of each level; NaN for a level without any."""
        return np.stack([values[self.levels == level].mean(axis=0) if (self.levels == level).any()
                         else np.full(values.shape[1:], np.nan) for level in range(5)])


def leave_one_out(people: People, body: NDArray[np.bool_], faces: NDArray[np.int32], mode_counts: tuple[int, ...]
                  ) -> LeftOut:
    """Each person that counts in the modes is left out of means and modes in turn, with the mirrored copies.

    A left-out vertebra is aligned rigidly to the mean and projected on the modes (both of the others). Mirrored copies
    are not measured. Where the others have fewer modes than asked for, the numbers of modes are cut to the fewest that
    any of them have. Raises UsxError with fewer than three people.
    """
    measured = (people.groups == 0) & (people.copies == 0) & (people.mode_weights > 0.0)
    subjects = np.unique(people.subjects[measured])
    if len(subjects) < 3:
        raise UsxError(f"leaving one person out needs three people or more; there are {len(subjects)}")
    errors, offsets, rows = [], [], []
    models = [_others(people.rows(people.subjects != subject), body, max(mode_counts)) for subject in subjects]
    fewest = min(len(directions) for _, directions in models)
    mode_counts = tuple(sorted({min(count, fewest) for count in mode_counts}))
    for subject, (means, directions) in zip(subjects, models, strict=True):
        for row in np.flatnonzero(measured & (people.subjects == subject)):
            mean = means[people.levels[row]]
            if np.isnan(mean).any():
                continue  # nobody else has this level
            error, offset = _explain(people.shapes[row], mean, directions, faces, mode_counts)
            errors.append(error)
            offsets.append(offset)
            rows.append(row)
    found, chosen = np.asarray(errors), np.asarray(rows)
    return LeftOut(mode_counts, found[:, 0], found[:, 1], np.stack(offsets), chosen, people.levels[chosen],
                   people.subjects[chosen])


def _others(people: People, body: NDArray[np.bool_], modes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    found = analyse(people, body, modes)
    return found.means, found.directions


def _explain(shape: NDArray, mean: NDArray, directions: NDArray, faces: NDArray, counts: tuple[int, ...]
             ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(2, C) vertex and normal error for each number of modes, and the offsets (V, 3) that the most modes leave."""
    residual = (apply(align(shape, mean), shape) - mean).ravel()
    scores = directions @ residual
    errors = np.empty((2, len(counts)))
    rest = residual.reshape(-1, 3)
    for column, count in enumerate(counts):
        rest = (residual - scores[:count] @ directions[:count]).reshape(-1, 3)
        errors[:, column] = mean_error(rest, mean, faces)
    most = (residual - scores[: max(counts)] @ directions[: max(counts)]).reshape(-1, 3)
    return errors, most


def mean_error(offsets: NDArray, mean: NDArray, faces: NDArray) -> tuple[float, float]:
    """Mean length of offsets (V, 3) in mm, and mean absolute part along the normals of the mean (V, 3)."""
    return (float(np.linalg.norm(offsets, axis=1).mean()),
            float(np.abs(along_normals(offsets, mean, faces)).mean()))


def process_fit(offsets: NDArray, basis: NDArray, sd_mm: float, noise_mm: float = 0.2) -> NDArray[np.float64]:
    """(V, 3) what a smooth field ``sd_mm * basis @ c`` (basis (V, R)) leaves of offsets (V, 3): ridge regression."""
    local = sd_mm * np.asarray(basis, dtype=np.float64)
    system = local.T @ local / noise_mm**2 + np.eye(local.shape[1])
    return offsets - local @ np.linalg.solve(system, local.T @ offsets / noise_mm**2)
