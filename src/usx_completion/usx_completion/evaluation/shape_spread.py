"""How far the synthetic test spines are from the mean, beside people kept out of the model: nobody should be wilder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from usx_common.levels import LEVELS
from usx_common.transforms import apply
from usx_completion.evaluation.case import Case
from usx_completion.leave_one_out import mean_error
from usx_completion.rigid import align
from usx_completion.shape_model import PACKAGED_REAL, ShapeModel, load_shape_model

_model: ShapeModel | None = None


@dataclass(frozen=True)
class SpreadRow:
    """One true vertebra, rigidly aligned to its level's mean: mean distance along the mean's normals in mm to the mean,
    and to what the model's modes explain of it (the measure of `usx_completion.spread_calibration`)."""

    dataset: str
    level: str
    to_mean_mm: float
    left_over_mm: float


def packaged_model() -> ShapeModel:
    """The shape model of real people, loaded once a process."""
    global _model
    if _model is None:
        _model = load_shape_model(PACKAGED_REAL)[0]
    return _model


def spread_of(case: Case) -> list[SpreadRow]:
    """Rows of a case whose vertices correspond to the packaged model's; none for other meshes."""
    model = packaged_model()
    modes = model.modes.reshape(model.mode_count, -1)
    directions = modes / np.linalg.norm(modes, axis=1, keepdims=True)
    rows = []
    for level, mesh in case.truth.items():
        if mesh.faces.shape != model.faces.shape or not np.array_equal(mesh.faces, model.faces):
            return []
        mean = model.means[LEVELS.index(level)]
        offset = (apply(align(mesh.vertices, mean), mesh.vertices) - mean).ravel()
        rest = offset - (directions @ offset) @ directions
        rows.append(SpreadRow(case.dataset, level, *(mean_error(part.reshape(-1, 3), mean, model.faces)[1]
                                                     for part in (offset, rest))))
    return rows


def spread_table(rows: Sequence[SpreadRow]) -> list[list[str]]:
    """Lines of a name and six numbers (L1 .. L5, mean; mm): of the synthetic test spines, and of people left out when
    the model was built."""
    model = packaged_model()
    lines = []
    for title, field, real in (("to the mean", "to_mean_mm", model.spread.to_mean_mm),
                               ("left over by the modes", "left_over_mm", model.spread.left_over_mm)):
        mine = [float(np.mean([getattr(row, field) for row in rows if row.level == level] or [np.nan]))
                for level in LEVELS]
        for who, numbers in (("synthetic test spines", mine), ("people left out", list(real))):
            lines.append([f"{who}, {title}", *(f"{value:.2f}" for value in [*numbers, float(np.mean(numbers))])])
    return lines
